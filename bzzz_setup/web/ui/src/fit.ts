import type { Fit, Place } from "./api";

/** The parts of a place, in the order in which they are drawn. */
export const PARTS = ["weights", "cache", "overhead", "reserved", "free"] as const;
export type Part = (typeof PARTS)[number];

export interface Segment {
  part: Part;
  bytes: number;
  /** In per cent of the whole. */
  left: number;
  width: number;
}

export const bytesOf = (place: Place, part: Part): number => place[`${part}_bytes`];

/** How long each part of a bar is; parts of nothing are left out. */
export function segments(place: Place): Segment[] {
  const whole = place.total_bytes || 1;
  let left = 0;
  const found: Segment[] = [];
  for (const part of PARTS) {
    const bytes = bytesOf(place, part);
    const width = Math.max(0, Math.min(100 - left, (100 * bytes) / whole));
    if (width > 0) found.push({ part, bytes, left, width });
    left += width;
  }
  return found;
}

/** In GiB, and what is less than a tenth of one in MiB. */
export function size(bytes: number): string {
  const gib = bytes / 2 ** 30;
  if (bytes === 0) return "0";
  return gib < 0.1 ? `${Math.ceil(bytes / 2 ** 20)} MiB` : `${gib.toFixed(1)} GiB`;
}

export interface Row {
  node: string;
  /** A GPU's UUID; none where it is the machine's memory. */
  uuid: string | null;
  name: string;
  place: Place;
}

/** Machines with their places: GPUs, then memory; that of machines with GPUs only where something is in it. */
export function rows(fit: Fit): Row[] {
  return Object.entries(fit.nodes).flatMap(([node, room]) => [
    ...room.gpus.map((gpu) => ({ node, uuid: gpu.uuid, name: gpu.name, place: gpu as Place })),
    ...(room.memory.models.length || !room.gpus.length ? [{ node, uuid: null, name: "", place: room.memory }] : []),
  ]);
}
