import assert from 'node:assert/strict'
import path from 'node:path'
import { describe, test } from 'node:test'
import { complaints, load, loadToml, NO_TLS } from './loading.ts'
import { TempFolder } from './temp-folder.ts'

describe('an origin', () => {
  test('of every type has what is its own, and nothing else', async () => {
    const { origins } = await loadToml(`
      [origins]
      Layout = { type = "oci-layout", path = "/images" }
      files = { type = "localfs", dir = "/blobs" }
      file = { type = "localfs", blob_file = "/blob" }
      disk = { type = "localdisk", device_path = "/dev/vdb" }
      web = { type = "http", url = "https://files.example/blobs/" }
      socket = { type = "http", url = "unix:/run/blob.sock" }
      s3 = { type = "s3", endpoint = "https://s3.example/", bucket = "b" }
      oss = { type = "oss", endpoint = "https://oss.example", bucket = "b" }
    `)
    assert.deepEqual(origins, {
      layout: { type: 'oci-layout', path: '/images' },
      files: { type: 'localfs', dir: '/blobs', altDirs: [] },
      file: { type: 'localfs', blobFile: '/blob', altDirs: [] },
      disk: { type: 'localdisk', devicePath: '/dev/vdb', disableGpt: false },
      web: { type: 'http', url: 'https://files.example/blobs', headers: {}, tls: NO_TLS },
      socket: { type: 'http', url: 'unix:/run/blob.sock', headers: {}, tls: NO_TLS },
      s3: {
        type: 's3',
        endpoint: 'https://s3.example',
        bucket: 'b',
        prefix: '',
        region: 'us-east-1',
        pathStyle: true,
        tls: NO_TLS,
      },
      oss: { type: 'oss', endpoint: 'https://oss.example', bucket: 'b', prefix: '', tls: NO_TLS },
    })
  })

  test('may have all that its type has', async () => {
    await using folder = await TempFolder.open()
    const at = (name: string): string => path.join(folder.path, name)
    for (const name of ['ca.pem', 'cert.pem', 'key.pem']) await folder.write(name, '')
    for (const name of ['password', 'secret', 'token']) await folder.write(name, `the ${name}\n`)
    const tls = 'tls = { ca = ["ca.pem"], cert = "cert.pem", key = "key.pem", server_name = "x" }'
    const file = await folder.write(
      'shoal.toml',
      `
      [origins.files]
      type = "localfs"
      dir = "blobs"
      alt_dirs = ["more", "/even/more"]
      [origins.disk]
      type = "localdisk"
      device_path = "disk.img"
      disable_gpt = true
      [origins.web]
      type = "http"
      url = "http://files.example"
      headers = { X-One = "1", X-Two = ["1", "2"] }
      username = "u"
      password_file = "password"
      ${tls}
      [origins.s3]
      type = "s3"
      endpoint = "http://10.0.0.1:9000"
      region = "eu-central-1"
      bucket = "b"
      prefix = "blobs/"
      path_style = false
      access_key_id = "AK"
      secret_access_key_file = "secret"
      session_token_file = "token"
      ${tls}
      [origins.oss]
      type = "oss"
      endpoint = "https://oss.example"
      bucket = "b"
      access_key_id = "AK"
      secret_access_key_file = "env:OSS_SECRET"
    `,
    )
    const { config, warnings } = await load({ file, env: { OSS_SECRET: 'from the environment' } })
    const tlsConfig = {
      ca: [at('ca.pem')],
      clients: [{ cert: at('cert.pem'), key: at('key.pem') }],
      skipVerify: false,
      serverName: 'x',
    }
    assert.deepEqual(warnings, [])
    assert.deepEqual(config.origins, {
      files: { type: 'localfs', dir: at('blobs'), altDirs: [at('more'), '/even/more'] },
      disk: { type: 'localdisk', devicePath: at('disk.img'), disableGpt: true },
      web: {
        type: 'http',
        url: 'http://files.example',
        headers: { 'X-One': ['1'], 'X-Two': ['1', '2'] },
        username: 'u',
        password: 'the password',
        tls: tlsConfig,
      },
      s3: {
        type: 's3',
        endpoint: 'http://10.0.0.1:9000',
        region: 'eu-central-1',
        bucket: 'b',
        prefix: 'blobs/',
        pathStyle: false,
        accessKeyId: 'AK',
        secretAccessKey: 'the secret',
        sessionToken: 'the token',
        tls: tlsConfig,
      },
      oss: {
        type: 'oss',
        endpoint: 'https://oss.example',
        bucket: 'b',
        prefix: '',
        accessKeyId: 'AK',
        secretAccessKey: 'from the environment',
        tls: NO_TLS,
      },
    })
  })

  test('takes nydusd’s names for a bucket and a prefix, in every layer', async () => {
    const bucket = { type: 'oss', endpoint: 'https://oss.example', bucket: 'b', prefix: 'p/', tls: NO_TLS }
    const toml =
      'origins.o = { type = "oss", endpoint = "https://oss.example", bucket_name = "b", object_prefix = "p/" }'
    assert.deepEqual((await loadToml(toml)).origins, { o: bucket })
    const env = { SHOAL_ORIGINS__O__BUCKET_NAME: '"c"' }
    assert.deepEqual((await loadToml(toml, { env })).origins, { o: { ...bucket, bucket: 'c' } })
    const set = ['origins.o.bucket=d', 'origins.o.object_prefix=q/']
    assert.deepEqual((await loadToml(toml, { env, set })).origins, { o: { ...bucket, bucket: 'd', prefix: 'q/' } })
  })

  test('warns of a secret that everybody can read, and does not show it', async () => {
    await using folder = await TempFolder.open()
    const secret = await folder.write('secret', 'hunter2', 0o644)
    const toml = `origins.o = { type = "s3", endpoint = "http://a", bucket = "b", access_key_id = "AK", secret_access_key_file = "${secret}" }`
    const { warnings } = await load({ file: await folder.write('shoal.toml', toml) })
    assert.deepEqual(warnings, [
      `origins.o.secret_access_key_file: ${secret} is readable by every user of this machine`,
    ])
  })
})

describe('a problem of an origin', () => {
  const S3 = '[origins.o]\ntype = "s3"\nendpoint = "https://s3.example"\nbucket = "b"\n'
  const HTTP = '[origins.o]\ntype = "http"\nurl = "https://files.example"\n'
  const CASES: Record<string, [toml: string, complaint: string]> = {
    'no type': ['[origins.o]\npath = "/x"', 'FILE:1: origins.o.type: is missing'],
    'a key of another type': [
      '[origins.o]\ntype = "localfs"\ndir = "/x"\nbucket = "b"',
      'FILE:4: origins.o.bucket: is not a key of the type "localfs", but of "s3", "oss"',
    ],
    'a key of another type, by its other name': [
      '[origins.o]\ntype = "localfs"\ndir = "/x"\nbucket_name = "b"',
      'FILE:1: origins.o.bucket: is not a key of the type "localfs", but of "s3", "oss"',
    ],
    'a table of another type': [
      '[origins.o]\ntype = "localfs"\ndir = "/x"\ntls = { skip_verify = true }',
      'FILE:4: origins.o.tls: is not a key of the type "localfs", but of "http", "s3", "oss"',
    ],
    'a key of no type': [
      `${S3}pathstyle = true`,
      'FILE:5: origins.o.pathstyle: unknown key; the nearest is origins.o.path_style',
    ],
    'one key by two names': [
      `${S3}bucket_name = "c"`,
      'FILE:5: origins.o.bucket_name: is another name for bucket, which is there too',
    ],
    'a bucket that is not named': [
      '[origins.o]\ntype = "oss"\nendpoint = "https://oss.example"',
      'FILE:1: origins.o.bucket: is missing',
    ],
    'a bucket nowhere': ['[origins.o]\ntype = "s3"\nbucket = "b"', 'FILE:1: origins.o.endpoint: is missing'],
    'an endpoint without a scheme': [
      '[origins.o]\ntype = "s3"\nendpoint = "s3.example"\nbucket = "b"',
      'FILE:3: origins.o.endpoint: is not a URL such as "https://registry.example" or "http://10.0.0.5:5000"',
    ],
    'files nowhere': ['[origins.o]\ntype = "localfs"', 'FILE:1: origins.o: needs dir or blob_file'],
    'files and one file': [
      '[origins.o]\ntype = "localfs"\ndir = "/x"\nblob_file = "/y"',
      'FILE:1: origins.o: must not have both dir and blob_file',
    ],
    'one file, and more places for others': [
      '[origins.o]\ntype = "localfs"\nblob_file = "/y"\nalt_dirs = ["/z"]',
      'FILE:4: origins.o.alt_dirs: makes no sense with blob_file',
    ],
    'no disk': ['[origins.o]\ntype = "localdisk"', 'FILE:1: origins.o.device_path: is missing'],
    'a server of an unknown kind': [
      '[origins.o]\ntype = "http"\nurl = "ftp://files.example"',
      'FILE:3: origins.o.url: is not a URL such as "https://files.example/blobs", or "unix:/path/of.sock"',
    ],
    'a socket that is not absolute': [
      '[origins.o]\ntype = "http"\nurl = "unix:blob.sock"',
      'FILE:3: origins.o.url: is not a URL such as "https://files.example/blobs", or "unix:/path/of.sock"',
    ],
    'a server with a query': [
      '[origins.o]\ntype = "http"\nurl = "https://files.example/?token=hunter2"',
      'FILE:3: origins.o.url: must not have a query or a fragment',
    ],
    'a header with a credential': [
      `${HTTP}headers = { Cookie = "hunter2" }`,
      'FILE:4: origins.o.headers.Cookie: must not be given here: credentials come from files, not from the configuration',
    ],
    'a user without a password': [`${HTTP}username = "u"`, 'FILE:4: origins.o.username: needs password_file beside it'],
    'a user that Basic cannot carry': [
      `${HTTP}username = "u:v"\npassword_file = "/etc/hostname"`,
      'FILE:4: origins.o.username: must not contain ":" (RFC 7617, section 2)',
    ],
    'a certificate without its key': [
      `${HTTP}tls.cert = "/dev/null"`,
      'FILE:4: origins.o.tls.cert: needs tls.key beside it',
    ],
    'an access key without its secret': [
      `${S3}access_key_id = "AK"`,
      'FILE:5: origins.o.access_key_id: needs secret_access_key_file beside it',
    ],
    'a secret without its access key': [
      `${S3}secret_access_key_file = "/etc/hostname"`,
      'FILE:5: origins.o.secret_access_key_file: needs access_key_id beside it',
    ],
    'a session of nobody': [
      `${S3}session_token_file = "/etc/hostname"`,
      'FILE:5: origins.o.session_token_file: needs access_key_id beside it',
    ],
    'a secret file that is not there': [
      `${S3}access_key_id = "AK"\nsecret_access_key_file = "/nonexistent/s"`,
      'FILE:6: origins.o.secret_access_key_file: /nonexistent/s cannot be read: ENOENT',
    ],
    'a secret in clear, as nydusd has it': [
      `${S3}access_key_id = "AK"\naccess_key_secret = "hunter2"`,
      'FILE:6: origins.o.access_key_secret: is not read: secrets come from files, see secret_access_key_file',
    ],
    'a secret in clear, as AWS calls it': [
      `${S3}access_key_id = "AK"\nsecret_access_key = "hunter2"`,
      'FILE:6: origins.o.secret_access_key: is not read: secrets come from files, see secret_access_key_file',
    ],
    'a session token in clear': [
      `${S3}session_token = "hunter2"`,
      'FILE:5: origins.o.session_token: is not read: secrets come from files, see session_token_file',
    ],
  }

  for (const [what, [toml, complaint]] of Object.entries(CASES)) {
    test(`is named, with its place: ${what}`, async () => assert.deepEqual(await complaints(toml), [complaint]))
  }
})
