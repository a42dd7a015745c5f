import { blobSourceConformance } from '../../conformance/blob-source.ts'
import { keyOf } from '../rig.ts'
import { HTTP, openObjects, OSS, S3, type Dialect, type ObjectRigOptions } from './rig.ts'

function objectConformance(name: string, dialect: Dialect, options: ObjectRigOptions = {}, more: object = {}): void {
  blobSourceConformance(name, async blobs => {
    const { origin, server } = await openObjects(dialect, { ...options, blobs }, more)
    return {
      source: origin,
      key: digest => keyOf(digest),
      close: async () => {
        await server.close()
        await origin.close()
      },
    }
  })
}

objectConformance('a bucket of S3', S3)
objectConformance('a bucket of S3 that sends no ETag', S3, { fault: () => ({ headers: { etag: '' } }) })
objectConformance('a bucket of OSS', OSS)
objectConformance('an HTTP server', HTTP)
objectConformance('an HTTP server that ignores Range', HTTP, { fault: () => ({ ignoreRange: true }) })
objectConformance('an HTTP server that does not answer HEAD', HTTP, {
  fault: ({ method }) => (method === 'HEAD' ? { status: 405 } : undefined),
})
