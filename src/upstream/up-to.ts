/**
 * For an LRUCache of at most `entries` whose memory grows with what is in it. With `max`, it takes the memory for all of them at once; and
 * what each registry remembers is remembered for each name that `*` stands for.
 */
export function upTo(entries: number): { readonly maxSize: number; readonly sizeCalculation: () => number } {
  return { maxSize: entries, sizeCalculation: () => 1 }
}
