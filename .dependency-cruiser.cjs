// The import rule of docs/architecture.md: arrows between rooms point one way, and through the door (index.ts) only.
const rooms = ['core', 'config', 'observability', 'store', 'upstream', 'blobs', 'http', 'cli']
const may = {
  core: [],
  config: ['core'],
  observability: ['core'],
  store: ['core'],
  upstream: ['core'],
  blobs: ['core', 'store'],
  http: ['core', 'blobs'],
  cli: ['core', 'config'],
}

const arrows = rooms.map(room => ({
  name: `${room}-imports`,
  comment: `${room} may import: ${may[room].join(', ') || 'nothing of ours'}${room === 'cli' ? ', daemon.ts' : ''}`,
  severity: 'error',
  from: { path: `^src/${room}/` },
  to: {
    path: '^src/',
    pathNot: [
      `^src/${room}/`,
      ...may[room].map(other => `^src/${other}/`),
      ...(room === 'cli' ? ['^src/daemon\\.ts$'] : []),
    ],
  },
}))

module.exports = {
  forbidden: [
    ...arrows,
    {
      name: 'through-the-door',
      comment: 'another room is entered by its index.ts',
      severity: 'error',
      from: { path: '^src/([^/]+)/' },
      to: { path: '^src/[^/]+/.+', pathNot: ['^src/$1/', '^src/[^/]+/index\\.ts$'] },
    },
    {
      name: 'hall-through-the-door',
      severity: 'error',
      from: { path: '^src/[^/]+\\.ts$' },
      to: { path: '^src/[^/]+/.+', pathNot: ['^src/[^/]+/index\\.ts$'] },
    },
    { name: 'no-cycles', severity: 'error', from: { path: '^src/' }, to: { circular: true } },
    { name: 'src-not-test', severity: 'error', from: { path: '^src/' }, to: { path: '^(test|bench|scripts)/' } },
    {
      name: 'declared-packages',
      severity: 'error',
      from: { path: '^src/' },
      to: { dependencyTypes: ['npm-no-pkg', 'npm-unknown', 'npm-dev', 'unknown'], dependencyTypesNot: ['type-only'] },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default'],
      extensions: ['.ts', '.js'],
    },
  },
}
