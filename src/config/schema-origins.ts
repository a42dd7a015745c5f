import type { Static } from '@sinclair/typebox'
import {
  choice,
  entry,
  flag,
  headers,
  onlyFor,
  optional,
  required,
  secret,
  strings,
  text,
  tls,
} from './schema-parts.ts'

const ORIGIN_TYPES = ['oci-layout', 'localfs', 'localdisk', 'http', 's3', 'oss'] as const
const BUCKETS = ['s3', 'oss'] as const

/** Names are nydusd's where it has the same thing; where ours differ, its names are accepted too. */
export const OriginSchema = entry({
  type: choice(
    ORIGIN_TYPES,
    'Kind of origin. "oci-layout": a directory is a registry. "localfs": files named by the hex of their digests. "localdisk": GPT partitions of a disk or an image of one. "http": any server with Range. "s3", "oss": a bucket.',
  ),
  path: onlyFor(
    ['oci-layout'],
    required('path', 'An OCI image layout, or a directory of layouts named by repository.', { sample: '/srv/images' }),
  ),
  dir: onlyFor(
    ['localfs'],
    optional('path', 'Directory of the files. Either this or blob_file.', { sample: '/srv/blobs' }),
  ),
  blob_file: onlyFor(['localfs'], optional('path', 'One file that is whatever blob is asked for.')),
  alt_dirs: onlyFor(['localfs'], strings('path', [], 'Further directories to look in.')),
  device_path: onlyFor(
    ['localdisk'],
    required('path', 'The disk, or the file that is an image of one.', { sample: '/dev/vdb' }),
  ),
  disable_gpt: onlyFor(['localdisk'], flag(false, 'Whether the whole disk is the one blob.')),
  url: onlyFor(
    ['http'],
    required(
      'origin-url',
      'Where the blobs are, each at <url>/<hex of its digest>: http:// or https://; or "unix:/path/of.sock", which is one blob.',
      { sample: 'https://files.example/blobs' },
    ),
  ),
  headers: onlyFor(['http'], headers()),
  username: onlyFor(['http'], text('', 'User name for basic authentication.')),
  password_file: onlyFor(['http'], secret('password')),
  endpoint: onlyFor(
    BUCKETS,
    required('url', 'Where the object store is: http:// or https://, host and port.', {
      sample: 'https://objects.example',
    }),
  ),
  region: onlyFor(['s3'], text('us-east-1', 'Region that requests are signed for.')),
  bucket: onlyFor(
    BUCKETS,
    required(undefined, "Name of the bucket. nydusd's bucket_name is the same.", { sample: 'models' }),
    ['bucket_name'],
  ),
  prefix: onlyFor(
    BUCKETS,
    text('', "What the keys of objects have before the hex of the digest. nydusd's object_prefix is the same."),
    ['object_prefix'],
  ),
  path_style: onlyFor(['s3'], flag(true, 'Whether the bucket is the first part of the path, or else of the host.')),
  access_key_id: onlyFor(
    BUCKETS,
    text(
      '',
      "Access key. Empty: from the environment, or for s3 from any place that AWS's own tools look in, instance metadata included.",
    ),
  ),
  secret_access_key_file: onlyFor(BUCKETS, secret('secret key')),
  session_token_file: onlyFor(BUCKETS, secret('session token')),
  tls: onlyFor(['http', ...BUCKETS], tls()),
})

export type RawOrigin = Static<typeof OriginSchema>
