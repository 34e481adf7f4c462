import type { Draft, Problem, Seen } from "./api";
import { t } from "./texts";

// --- networks on an axis ---

/** A network's first address, and the first behind it. Those of IPv6 lie behind all of IPv4. */
export function span(network: string): [bigint, bigint] {
  const [address = "", prefix = ""] = network.split("/");
  const bits = address.includes(":") ? 128 : 32;
  const first = (bits === 128 ? 1n << 128n : 0n) + (bits === 128 ? ofSix(address) : ofFour(address));
  return [first, first + (1n << BigInt(bits - Number(prefix)))];
}

const ofFour = (text: string) => text.split(".").reduce((sum, part) => sum * 256n + BigInt(part), 0n);

function ofSix(text: string): bigint {
  // The last two words may be written as an IPv4 address.
  const plain = text.replace(/\d+\.[\d.]+$/, (four) => ofFour(four).toString(16).padStart(8, "0").replace(/^.{4}/, "$&:"));
  const [head = [], tail = []] = plain.split("::").map((part) => part.split(":").filter(Boolean));
  const words = plain.includes("::") ? [...head, ...Array<string>(8 - head.length - tail.length).fill("0"), ...tail] : head;
  return words.reduce((sum, word) => sum * 65536n + BigInt(`0x${word}`), 0n);
}

export interface Bar {
  left: number;
  width: number;
}

/** Where each network lies, in per cent. In order, not to scale: a small network within a large one would be seen by nobody. */
export function axis(networks: string[]): Bar[] {
  const spans = networks.map(span);
  const edges = [...new Set(spans.flat())].sort((a, b) => (a < b ? -1 : 1));
  const at = new Map<bigint, number>();
  let sum = 0;
  edges.forEach((edge, place) => {
    at.set(edge, sum);
    // What belongs to no network takes less room.
    sum += place + 1 === edges.length ? 0 : spans.some(([first, end]) => first <= edge && edge < end) ? 3 : 1;
  });
  return spans.map(([first, end]) => ({ left: (100 * at.get(first)!) / sum, width: (100 * (at.get(end)! - at.get(first)!)) / sum }));
}

// --- ports ---

export interface PortRow {
  option: string;
  port: number;
  protocol: string;
  nodes: string;
  /** Who listens there already, and where. */
  taken: string[];
  problems: Problem[];
  state: "conflict" | "warning" | "own" | "free" | "unknown";
}

/** Each port that the cluster is to listen on, who has it already, and what the rules say of it. */
export function portRows(draft: Draft): PortRow[] {
  const everyone = Object.keys(draft.nodes).length;
  return draft.ports.map((one) => {
    const problems = draft.problems.filter((problem) => problem.option === one.option && (problem.value ?? one.port) === one.port);
    const taken = new Map<string, typeof one.taken>();
    for (const who of one.taken) {
      const key = [who.program ?? t.unreadable, who.unit].filter(Boolean).join(", ");
      taken.set(key, [...(taken.get(key) ?? []), who]);
    }
    const conflict = problems.some((problem) => problem.severity !== "warning") || one.taken.length > 0;
    return {
      ...one,
      nodes: among(one.nodes, everyone),
      taken: [
        ...[...taken].map(([who, all]) => t.listens(who, all.length === 1 ? (all[0]!.pid ?? null) : null, among([...new Set(all.map((each) => each.node))], everyone))),
        ...(one.own.length ? [t.ownOn(among(one.own, everyone))] : []),
      ],
      problems,
      state: conflict ? "conflict" : problems.length ? "warning" : one.own.length ? "own" : draft.facts_of ? "free" : "unknown",
    };
  });
}

/** Machines in few words. */
export function among(nodes: string[], everyone: number): string {
  return nodes.length === everyone && everyone > 1 ? t.allMachines.toLowerCase() : few(nodes, 4);
}

function few(words: string[], most: number): string {
  return words.length > most ? t.andMore(words.slice(0, most - 1).join(", "), words.length - most + 1) : words.join(", ");
}

// --- interfaces ---

export interface Choice {
  name: string;
  /** On how many of the machines it is taken by itself. */
  primary: number;
  details: string;
}

/** The interface that carries the cluster's traffic on a machine where none is named. */
export function primaryOf(draft: Draft, node: string, seen: Seen | undefined): string | undefined {
  return (draft.detected.network_interface?.[node] as string | undefined) ?? seen?.interfaces.find((one) => one.primary)?.name;
}

/** The interfaces that these machines have, those first that are taken by themselves. */
export function choices(draft: Draft, seen: Record<string, Seen>, nodes: string[]): Choice[] {
  const found = new Map<string, { node: string; one: Seen["interfaces"][number] }[]>();
  for (const node of nodes) {
    for (const one of seen[node]?.interfaces ?? []) found.set(one.name, [...(found.get(one.name) ?? []), { node, one }]);
  }
  return [...found]
    .map(([name, all]) => {
      const parts = (["addresses", "state", "speed", "mtu", "kind", ...(nodes.length > 1 ? [] : ["mac" as const])] as const).map((part) => {
        const values = few([...new Set(all.map(({ one }) => one[part]).filter(Boolean))], 3);
        return part === "mtu" && values ? `MTU ${values}` : values;
      });
      const where = nodes.length > 1 ? t.onMachines(all.length, nodes.length) : "";
      return { name, primary: all.filter(({ node }) => primaryOf(draft, node, seen[node]) === name).length, details: [where, ...parts].filter(Boolean).join(" · ") };
    })
    .sort((a, b) => b.primary - a.primary);
}
