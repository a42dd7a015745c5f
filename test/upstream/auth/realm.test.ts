import assert from 'node:assert/strict'
import { test } from 'node:test'
import { trustedRealm } from '../../../src/upstream/auth/realm.ts'

function isTrusted(realm: string, registry: string): boolean {
  return trustedRealm(realm, new URL(registry)) !== undefined
}

const ALLOWED: [realm: string, registry: string, why: string][] = [
  ['https://auth.docker.io/token', 'https://registry-1.docker.io/v2/', 'the known realm of Docker Hub'],
  ['https://ghcr.io/token', 'https://ghcr.io/v2/', 'the registry itself'],
  ['https://ghcr.io/token', 'https://lscr.io/v2/', 'a known realm elsewhere'],
  ['https://gitlab.com/jwt/auth', 'https://registry.gitlab.com/v2/', 'the same site, one label up'],
  ['https://sso.corp.example:8443/auth', 'https://registry.corp.example/v2/', 'the same site on another port'],
  ['https://auth.shop.co.uk/', 'https://registry.shop.co.uk/v2/', 'the same site below a two-part suffix'],
  ['https://127.0.0.1:5001/token', 'https://127.0.0.1:5000/v2/', 'the same address'],
  ['http://127.0.0.1:5001/token', 'http://127.0.0.1:5000/v2/', 'plain http where the registry is plain http'],
  ['http://localhost:5001/token', 'https://localhost:5000/v2/', 'plain http on this machine'],
  ['https://[::1]:5001/token', 'https://[::1]/v2/', 'the same IPv6 address'],
  ['https://corp.jfrog.io/token', 'https://corp.jfrog.io/v2/', 'the very host, below a shared suffix'],
  ['https://us-docker.pkg.dev/v2/token', 'https://us-docker.pkg.dev/v2/', 'the very host, below a shared suffix'],
  ...[
    ['dockerauth.cn-hangzhou', 'registry.cn-hangzhou'],
    ['dockerauth.cn-hangzhou', 'registry.cn-shanghai'],
    ['dockerauth.cn-hangzhou', 'registry'],
    ['dockerauth', 'registry.cn-shanghai'],
    ['dockerauth.ap-southeast-1', 'registry-intl.ap-southeast-1'],
    ['dockerauth-vpc.cn-beijing', 'registry-vpc.cn-beijing'],
    ['dockerauth-cn-zhangjiakou', 'registry.cn-zhangjiakou'],
    ['dockerauth-ee.cn-hangzhou', 'corp-registry.cn-hangzhou.cr'],
    ['dockerauth.cn-hangzhou', 'crpi-0a1b2c.cn-hangzhou.personal.cr'],
    ['dockerauth.cn-hangzhou', 'registry-cn-hangzhou.ack'],
  ].map(([realm = '', registry = '']): [string, string, string] => [
    `https://${realm}.aliyuncs.com/auth`,
    `https://${registry}.aliyuncs.com/v2/`,
    'the token service of a cloud for its registries',
  ]),
]

const REFUSED: [realm: string, registry: string, why: string][] = [
  ['https://evil.example/token', 'https://registry.corp.test/v2/', 'another site'],
  ['https://corp.test.evil.example/token', 'https://registry.corp.test/v2/', 'the site as a label of another'],
  ['https://evilcorp.test/token', 'https://corp.test/v2/', 'a name that only ends alike'],
  ['http://auth.corp.test/token', 'https://registry.corp.test/v2/', 'plain http for a registry with https'],
  ['https://evil.co.uk/token', 'https://registry.shop.co.uk/v2/', 'another site below a two-part suffix'],
  ['https://evil.azurecr.io/token', 'https://corp.azurecr.io/v2/', 'another customer of a shared suffix'],
  ['https://evil.s3.amazonaws.com/', 'https://1.dkr.ecr.us-east-1.amazonaws.com/v2/', 'a bucket is not the registry'],
  ['https://evil.oss-cn-hangzhou.aliyuncs.com/', 'https://registry.cn-hangzhou.aliyuncs.com/v2/', 'a bucket'],
  ['https://dockerauth.oss-cn-hangzhou.aliyuncs.com/', 'https://registry.cn-hangzhou.aliyuncs.com/v2/', 'a bucket'],
  ['https://dockerauth-x.cn-hangzhou.cr.aliyuncs.com/', 'https://registry.cn-hangzhou.aliyuncs.com/v2/', 'a customer'],
  [
    'https://evil-registry.cn-hangzhou.cr.aliyuncs.com/',
    'https://a-registry.cn-hangzhou.cr.aliyuncs.com/v2/',
    'another',
  ],
  [
    'https://dockerauth.cn-hangzhou.aliyuncs.com/',
    'https://x.oss-cn-hangzhou.aliyuncs.com/v2/',
    'no registry of that cloud',
  ],
  [
    'https://dockerauth.cn-hangzhou.aliyuncs.com.evil.example/',
    'https://registry.cn-hangzhou.aliyuncs.com/v2/',
    'a label',
  ],
  ['http://dockerauth.cn-hangzhou.aliyuncs.com/', 'https://registry.cn-hangzhou.aliyuncs.com/v2/', 'plain http'],
  ['https://10.0.0.6/token', 'https://10.0.0.5/v2/', 'another address'],
  ['https://127.0.0.1/token', 'https://registry.corp.test/v2/', 'an address of this machine'],
  ['https://[::2]/token', 'https://[::1]/v2/', 'another IPv6 address'],
  ['https://other/token', 'https://registry/v2/', 'another single label'],
  ['https://user:pass@ghcr.io/token', 'https://ghcr.io/v2/', 'a credential in the URL'],
  ['file:///etc/passwd', 'http://ghcr.io/v2/', 'another protocol'],
  ['ftp://ghcr.io/', 'https://ghcr.io/v2/', 'another protocol on the same host'],
  ['/token', 'https://ghcr.io/v2/', 'no URL'],
  ['', 'https://ghcr.io/v2/', 'nothing'],
]

/** Each name below one of these is another customer's. */
const SHARED = [
  'aliyuncs.com',
  'amazonaws.com.cn',
  'blob.core.windows.net',
  'cloudfront.net',
  'digitaloceanspaces.com',
  'github.io',
  'herokuapp.com',
  'jfrog.io',
  'netlify.app',
  'nyc3.digitaloceanspaces.com',
  'pages.dev',
  'pkg.dev',
  'run.app',
  's3.amazonaws.com',
  's3.eu-west-1.amazonaws.com',
  's3.wasabisys.com',
  'vercel.app',
  'web.app',
]

test('below a suffix that customers share, only the very same host is trusted', () => {
  for (const suffix of SHARED) {
    const registry = `https://corp.${suffix}/v2/`
    assert.ok(isTrusted(`https://corp.${suffix}/token`, registry), suffix)
    assert.ok(!isTrusted(`https://evil.${suffix}/token`, registry), suffix)
    assert.ok(!isTrusted(`https://evil.corp.${suffix}/token`, registry), suffix)
    assert.ok(!isTrusted(`https://${suffix}/token`, registry), suffix)
  }
})

test('tokens are asked for on the registry’s own site and at known realms', () => {
  for (const [realm, registry, why] of ALLOWED)
    assert.ok(isTrusted(realm, registry), `${realm} for ${registry}: ${why}`)
})

test('nothing is sent to any other realm', () => {
  for (const [realm, registry, why] of REFUSED)
    assert.ok(!isTrusted(realm, registry), `${realm} for ${registry}: ${why}`)
})
