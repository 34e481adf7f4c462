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
