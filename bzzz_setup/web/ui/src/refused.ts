import type { Problem } from "./api";

/** An answer that is none of success: problem details, RFC 9457. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
    readonly problems: Problem[] = [],
    readonly changes: Record<string, { by: string; value?: unknown }> = {},
  ) {
    super(detail);
  }
}

/** What is wrong with a field of a form, in words, if that is why it was refused. */
export function ofField(error: Error | null, field: string): string | undefined {
  const found = error instanceof Refused ? error.problems.find((problem) => problem.option === field) : undefined;
  return found && `${whole(found.message)} ${whole(found.remedy)}`;
}

/** Why a form was refused, unless that is told at its fields. */
export const ofNone = (error: Error | null, fields: string[]) => (fields.some((field) => ofField(error, field)) ? null : error);

/** As a sentence; an address stays as it is. */
export const whole = (text: string) => text.replace(/^[a-z]+(?=[ ,])/, (word) => word.charAt(0).toUpperCase() + word.slice(1)).replace(/[^.]$/, "$&.");
