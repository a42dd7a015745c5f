export * from './child.ts'
export * from './shoal.ts'
export * from './tools.ts'
