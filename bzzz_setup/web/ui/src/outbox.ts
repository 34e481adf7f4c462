import type { Draft } from "./api";
import { Refused } from "./refused";

/** Milliseconds after the last key, and between attempts where there is no connection. */
const PAUSE = 50;
const RETRY = 3_000;

export interface Unsent {
  /** Path to the value that was typed and that the server does not have yet. */
  values: Record<string, unknown>;
  /** Whether an attempt to send them found nobody; they are sent again. */
  away: boolean;
  /** Why the last ones were refused. */
  refused: Error | null;
  /** Whose values stand, at which paths, instead of those that were typed. */
  conflict: { by: string; paths: string[] } | null;
}

interface Server {
  /** The revision that was seen. */
  revision: () => number;
  send: (base: number, changes: Record<string, unknown>) => Promise<Draft>;
  /** The draft as the server has it now; null where it must be asked for. */
  has: (draft: Draft | null) => Promise<unknown>;
}

/** Whether nobody has judged it: the same may do later. */
const later = (error: unknown) => !(error instanceof Refused) || [401, 429, 502, 503, 504].includes(error.status);

/** Values that were typed, on their way to the server: after a moment, together, one batch after the other, each upon what the one
 * before has left. None is forgotten before the server has it or has refused it, whichever page is shown meanwhile. */
export class Outbox {
  unsent: Unsent = { values: {}, away: false, refused: null, conflict: null };
  private readonly listeners = new Set<() => void>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private sending: Promise<void> | null = null;
  private again = false;
  private keep = false;
  /** What was seen when those were typed that found nobody: what others have changed since must not be overwritten. */
  private base: number | null = null;

  constructor(private readonly server: Server) {}

  readonly listen = (told: () => void) => {
    this.listeners.add(told);
    return () => void this.listeners.delete(told);
  };

  readonly now = () => this.unsent;

  private tell(news: Partial<Unsent>) {
    this.unsent = { ...this.unsent, ...news };
    for (const told of this.listeners) told();
  }

  readonly change = (changes: Record<string, unknown>) => {
    const again = this.unsent.conflict?.paths.some((path) => path in changes);
    this.tell({ values: { ...this.unsent.values, ...changes }, ...(again ? { conflict: null } : {}) });
    this.after(PAUSE);
  };

  /** The others' values are as good. */
  readonly agree = () => this.tell({ conflict: null });

  /** Sends what was typed; whoever waits for it goes on when the server has it, or has refused it, or is not there. */
  readonly flush = (): Promise<void> => {
    clearTimeout(this.timer);
    this.again = true;
    this.sending ??= this.all().finally(() => (this.sending = null));
    return this.sending;
  };

  private after(milliseconds: number) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.flush(), milliseconds);
  }

  private async all() {
    while (this.again && Object.keys(this.unsent.values).length) {
      this.again = false;
      await this.batch({ ...this.unsent.values });
    }
  }

  private async batch(changes: Record<string, unknown>) {
    const base = this.base ?? this.server.revision();
    try {
      const draft = await this.server.send(base, changes);
      this.base = null;
      await this.server.has(draft);
      // What was refused a moment ago, of the same values, is still to be read.
      this.without(changes, { away: false, ...(this.keep ? {} : { refused: null }) });
      this.keep = false;
    } catch (error) {
      if (later(error)) {
        this.base = base;
        this.tell({ away: true });
        this.after(RETRY);
        return;
      }
      this.base = null;
      await this.server.has(null);
      const others = Object.entries(error instanceof Refused && error.status === 409 ? error.changes : {});
      if (others.length) {
        this.without(Object.fromEntries(others.map(([path]) => [path, changes[path]])), { away: false, conflict: { by: others[0]![1].by, paths: others.map(([path]) => path) } });
        // The rest of it is in nobody's way.
        this.again = true;
      } else {
        // One that is refused takes no other with it, where it is told which that is.
        const named = new Set(error instanceof Refused ? error.problems.map((problem) => problem.option) : []);
        const theirs = Object.entries(changes).filter(([path]) => named.has(path.split("/").at(-1)!));
        const some = theirs.length > 0 && theirs.length < Object.keys(changes).length;
        this.without(some ? Object.fromEntries(theirs) : changes, { away: false, refused: error as Error });
        this.again ||= some;
        this.keep = some;
      }
    }
  }

  /** But what has been typed upon it meanwhile. */
  private without(changes: Record<string, unknown>, news: Partial<Unsent>) {
    const values = Object.fromEntries(Object.entries(this.unsent.values).filter(([path, value]) => !(path in changes) || value !== changes[path]));
    this.tell({ values, ...news });
  }
}
