export {
  BlobReader,
  presenceOf,
  type BlobReaderDeps,
  type BlobStream,
  type OpenBlob,
  type Presence,
  type ReadOptions,
} from './blob-reader.ts'
export type { Urgency } from './demand.ts'
export {
  ManifestReader,
  type ManifestAnswer,
  type ManifestReaderDeps,
  type ManifestReaderOptions,
} from './manifest-reader.ts'
export { originOrThrow, type Sources } from './sources.ts'
