import type { Problem } from "./api";

/** What is wrong, at the fields that it is about. */
export interface Errors {
  [name: string | number]: Errors | string[] | undefined;
}

const same = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other);

/** Puts a problem where it belongs: at the very field of an entry, at the entry, or at the option, as far as can be told. */
export function place(errors: Errors, problem: Problem, value: unknown): void {
  const [, number, rest] = /^Entry (\d+): (.*)$/s.exec(problem.message) ?? [];
  let path: (string | number)[] = [];
  let said = problem.message;
  if (number && Array.isArray(value) && value[Number(number) - 1] !== undefined) {
    path = [Number(number) - 1];
    said = rest!;
  }
  const within = path.length ? (value as unknown[])[path[0] as number] : value;
  const found = problem.value === undefined || problem.value === null ? [] : holders(within, problem.value);
  // Where several have this value, nobody can tell which is meant.
  if (found.length === 1) path = [...path, ...found[0]!];
  // Lists of words are one field, and which of its lines is meant is for the message to say.
  if (path.length && isWords(path.slice(0, -1).reduce<unknown>((whole, part) => (whole as Record<string | number, unknown>)[part], value))) {
    path = path.slice(0, -1);
    if (!path.length) said = problem.message;
  }
  // A message that begins with the name under which it is put says that twice.
  for (const part of path) said = said.startsWith(`${part}: `) ? said.slice(`${part}: `.length) : said;
  let at = errors;
  for (const part of [problem.option, ...path]) at = (at[part] ??= {}) as Errors;
  ((at.__errors ??= []) as string[]).push(`${said} ${problem.remedy}`);
}

const isWords = (value: unknown) => Array.isArray(value) && !value.some((one) => typeof one === "object");

/** The ways to all that has this value, in what has parts. */
function holders(whole: unknown, value: unknown): (string | number)[][] {
  if (typeof whole !== "object" || whole === null) return [];
  const parts: [string | number, unknown][] = Array.isArray(whole) ? whole.map((part, index) => [index, part]) : Object.entries(whole);
  return parts.flatMap(([name, part]) => (same(part, value) ? [[name]] : holders(part, value).map((way) => [name, ...way])));
}
