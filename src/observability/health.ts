export interface ComponentHealth {
  readonly ok: boolean
  /** Why not, or what is degraded. For a person. */
  readonly reason?: string
}

export interface Readiness {
  /** Whether at least one component has reported, and all that have are well. */
  readonly ok: boolean
  readonly components: Readonly<Record<string, ComponentHealth>>
}

/** Who is able to work. Components report when they change; /readyz asks. */
export class Health {
  readonly #components = new Map<string, ComponentHealth>()

  /** Components named here are not ready until they say so. */
  constructor(expected: readonly string[] = []) {
    for (const component of expected) this.set(component, false, 'starting')
  }

  /** The last word of a component replaces the one before. */
  set(component: string, ok: boolean, reason?: string): void {
    this.#components.set(component, reason === undefined ? { ok } : { ok, reason })
  }

  ready(): Readiness {
    const components = Object.fromEntries(this.#components)
    const all = Object.values(components)
    return { ok: all.length > 0 && all.every(component => component.ok), components }
  }
}
