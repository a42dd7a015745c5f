import assert from 'node:assert/strict'
import { test } from 'node:test'
import { verifyOss } from './oss-verifier.ts'
import { verifySigV4 } from './sigv4-verifier.ts'

/** The first example of the S3 documentation, "Signature Calculations for the Authorization Header": GET Object with a Range. */
const S3_EXAMPLE = {
  method: 'GET',
  url: '/test.txt',
  headers: {
    host: 'examplebucket.s3.amazonaws.com',
    range: 'bytes=0-9',
    'x-amz-content-sha256': 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    'x-amz-date': '20130524T000000Z',
    authorization:
      'AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,' +
      'SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,' +
      'Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
  },
}
const S3_EXPECTED = {
  accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
  region: 'us-east-1',
  now: Date.UTC(2013, 4, 24),
}

/** The example of the OSS documentation, "Include signatures in the Authorization header". */
const OSS_EXAMPLE = {
  method: 'PUT',
  url: '/nelson',
  headers: {
    date: 'Thu, 17 Nov 2005 18:49:58 GMT',
    'content-md5': 'ODBGOERFMDMzQTczRUY3NUE3NzA5QzdFNUYzMDQxNEM=',
    'content-type': 'text/html',
    'x-oss-meta-author': 'foo@bar.com',
    'x-oss-magic': 'abracadabra',
    authorization: 'OSS 44CF9590006BF252F707:26NBxoKdsyly4EDv6inkoDft/yA=',
  },
}
const OSS_EXPECTED = {
  accessKeyId: '44CF9590006BF252F707',
  secretAccessKey: 'OtxrzxIsfpFjA7SwPzILwy8Bw21TLhquhboDYROV',
  resource: '/oss-example/nelson',
  now: Date.UTC(2005, 10, 17, 18, 50),
}

test('the verifier of S3 signatures agrees with the documented example, and with nothing near it', () => {
  assert.equal(verifySigV4(S3_EXAMPLE, S3_EXPECTED), undefined)
  const refusedAs = (request: typeof S3_EXAMPLE, more: Partial<typeof S3_EXPECTED> = {}): string | undefined =>
    verifySigV4(request, { ...S3_EXPECTED, ...more })?.code
  const withHeaders = (more: object): typeof S3_EXAMPLE => ({
    ...S3_EXAMPLE,
    headers: { ...S3_EXAMPLE.headers, ...more },
  })
  assert.equal(refusedAs({ ...S3_EXAMPLE, method: 'HEAD' }), 'SignatureDoesNotMatch')
  assert.equal(refusedAs({ ...S3_EXAMPLE, url: '/test.tx' }), 'SignatureDoesNotMatch')
  assert.equal(refusedAs(withHeaders({ range: 'bytes=0-8' })), 'SignatureDoesNotMatch')
  assert.equal(refusedAs(withHeaders({ 'x-amz-meta-a': 'not signed' })), 'SignatureDoesNotMatch')
  assert.equal(refusedAs(withHeaders({ authorization: undefined })), 'AccessDenied')
  assert.equal(refusedAs(S3_EXAMPLE, { region: 'eu-west-1' }), 'AuthorizationHeaderMalformed')
  assert.equal(refusedAs(S3_EXAMPLE, { now: Date.UTC(2013, 4, 24, 1) }), 'RequestTimeTooSkewed')
  assert.equal(refusedAs(S3_EXAMPLE, { accessKeyId: 'another' }), 'InvalidAccessKeyId')
})

test('the verifier of OSS signatures agrees with the documented example, and with nothing near it', () => {
  assert.equal(verifyOss(OSS_EXAMPLE, OSS_EXPECTED), undefined)
  const refusedAs = (request: typeof OSS_EXAMPLE, more: Partial<typeof OSS_EXPECTED> = {}): string | undefined =>
    verifyOss(request, { ...OSS_EXPECTED, ...more })?.code
  assert.equal(refusedAs({ ...OSS_EXAMPLE, method: 'GET' }), 'SignatureDoesNotMatch')
  assert.equal(refusedAs(OSS_EXAMPLE, { resource: '/oss-example/nelso' }), 'SignatureDoesNotMatch')
  assert.equal(refusedAs(OSS_EXAMPLE, { now: Date.UTC(2005, 10, 17, 20) }), 'RequestTimeTooSkewed')
  assert.equal(refusedAs(OSS_EXAMPLE, { accessKeyId: 'another' }), 'InvalidAccessKeyId')
  const headers = { ...OSS_EXAMPLE.headers, authorization: 'OSS' }
  assert.equal(refusedAs({ ...OSS_EXAMPLE, headers }), 'AccessDenied')
})
