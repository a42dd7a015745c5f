import { isTree, type Tree } from '../../core/index.ts'

/** Undefined: not a JSON object. The engine's message is not passed on: it quotes its input, which here holds secrets. */
export function parseJsonObject(text: string): Tree | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return isTree(value) ? value : undefined
  } catch {
    return undefined
  }
}
