/** Rows of a form that are names with values. */
export interface Row {
  /** Stays the same while the name changes. */
  id: number;
  name: string;
}

type Values = Record<string, unknown>;

let last = 0;

/** The rows that are there, those without a value yet among them, and one for each name that has none. */
export function rowsOf(rows: Row[], data: Values): Row[] {
  const known = rows.map((row) => (row.id ? row : { ...row, id: ++last }));
  const names = new Set(known.map((row) => row.name));
  return [...known, ...Object.keys(data).filter((name) => !names.has(name)).map((name) => ({ id: ++last, name }))];
}

/** What rows say, in their order. `before`: the rows as they were called in `data`. Of two rows of one name, the first counts. */
export function written(rows: Row[], data: Values, before: Row[] = rows): Values {
  const found: Values = {};
  for (const row of rows) {
    const was = before.find((one) => one.id === row.id)?.name ?? row.name;
    if (row.name && was in data && data[was] !== undefined && !(row.name in found)) found[row.name] = data[was];
  }
  return found;
}

/** A value of any type, of what was typed. */
export function read(text: string): unknown {
  if (text.trim() === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

export function shown(value: unknown): string {
  return value === undefined || value === null ? "" : typeof value === "string" && read(value) === value ? value : JSON.stringify(value);
}
