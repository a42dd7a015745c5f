export interface Column {
  readonly title: string
  /** Numbers read best aligned right. Default: left. */
  readonly align?: 'left' | 'right'
}

const GAP = '  '

/** Aligned columns under their titles, with a final line break. Cells are plain text of one line; missing ones are blank. */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map((column, index) =>
    rows.reduce((width, row) => Math.max(width, (row[index] ?? '').length), column.title.length),
  )
  const format = (cells: readonly string[]): string =>
    columns
      .map((column, index) => {
        const cell = cells[index] ?? ''
        const width = widths[index] ?? 0
        return column.align === 'right' ? cell.padStart(width) : cell.padEnd(width)
      })
      .join(GAP)
      .trimEnd()
  return [columns.map(column => column.title), ...rows].map(cells => `${format(cells)}\n`).join('')
}
