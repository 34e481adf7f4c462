import type { Spend } from "./api";

/** Nano-USD as people write money: cents, and of less than ten the first two digits. As module_utils/forecast.py does. */
export function usd(nano: number): string {
  const value = nano / 1e9;
  const first = value === 0 ? 0 : Math.floor(Math.log10(Math.abs(value)));
  const text = value.toFixed(Math.min(9, Math.max(2, 1 - first)));
  return `${text.replace(/(\.\d\d+?)0+$/, "$1")} USD`;
}

export interface Column {
  start: string;
  nano: number;
  /** From the ground up, in the order of the names. */
  parts: { name: string; nano: number; calls: number }[];
}

export interface Stacks {
  /** Most expensive first; what is not among the first few is together, under the last name. */
  names: string[];
  columns: Column[];
  most: number;
}

/** How many are told apart by colour. */
export const APART = 5;

/** A column for each hour or day between the first and the last that cost something, of the parts that each name has in it. */
export function stacks(spend: Spend, others: string, none: string): Stacks {
  const sums = new Map<string, number>();
  const nameOf = (row: Spend["rows"][number]) => row[spend.by] || none;
  for (const row of spend.rows) sums.set(nameOf(row), (sums.get(nameOf(row)) ?? 0) + row.cost_nano);
  const ranked = [...sums].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1)).map(([name]) => name);
  const apart = ranked.length > APART + 1 ? ranked.slice(0, APART) : ranked;
  const names = apart.length < ranked.length ? [...apart, others] : apart;
  const columns = new Map<string, Column>();
  for (const row of spend.rows) {
    const name = apart.includes(nameOf(row)) ? nameOf(row) : others;
    const column = columns.get(row.start) ?? { start: row.start, nano: 0, parts: names.map((each) => ({ name: each, nano: 0, calls: 0 })) };
    const part = column.parts[names.indexOf(name)]!;
    part.nano += row.cost_nano;
    part.calls += row.calls;
    column.nano += row.cost_nano;
    columns.set(row.start, column);
  }
  const sorted = [...columns.values()].sort((a, b) => (a.start < b.start ? -1 : 1));
  return { names, columns: sorted, most: Math.max(0, ...sorted.map((column) => column.nano)) };
}

export interface Total {
  name: string;
  calls: number;
  tokens: number;
  nano: number;
  /** Mean, in milliseconds. */
  latency: number;
}

/** The whole range by name, most expensive first. */
export function totals(spend: Spend, none: string): Total[] {
  const found = new Map<string, Total>();
  for (const row of spend.rows) {
    const name = row[spend.by] || none;
    const total = found.get(name) ?? { name, calls: 0, tokens: 0, nano: 0, latency: 0 };
    total.latency = (total.latency * total.calls + row.latency_ms * row.calls) / (total.calls + row.calls);
    total.calls += row.calls;
    total.tokens += row.tokens_in + row.tokens_out;
    total.nano += row.cost_nano;
    found.set(name, total);
  }
  return [...found.values()].sort((a, b) => b.nano - a.nano || b.calls - a.calls);
}
