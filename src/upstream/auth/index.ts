export { Authorizer, type Grant, type TrustedSite } from './authorizer.ts'
export { fixedCredential, type Credential, type CredentialOptions, type CredentialSource } from './credential.ts'
export {
  credentialsFor,
  emptyKeychain,
  openKeychain,
  type CredentialRequest,
  type Keychain,
  type KeychainDeps,
  type KeychainOptions,
  type OpenKeychain,
} from './keychain.ts'
export { TokenClient } from './tokens.ts'
