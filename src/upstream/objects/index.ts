export { openHttpOrigin } from './http-origin.ts'
export { ObjectOrigin } from './object-origin.ts'
export { openOssOrigin } from './oss-origin.ts'
export { openS3Origin } from './s3-origin.ts'
