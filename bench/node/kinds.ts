import type { SessionsInput } from "./environment.ts";
import type { Way } from "./plain-pods.ts";

/** How a session starts: by Berth, with a setting, or by the bare loop. */
export interface Kind {
  /** On the command line. */
  readonly name: string;
  readonly title: string;
  readonly by: BerthKind | BareKind;
  /** The line of the container's log that shows the start of the session's program. */
  readonly hasProgramMarker?: boolean;
  /** Measured only if it is named. */
  readonly isExtra?: boolean;
}

export interface BerthKind {
  readonly server: "Berth";
  readonly sessions: Omit<SessionsInput, "maxConcurrent">;
}

export interface BareKind {
  readonly server: "bare loop";
  readonly way: Way;
  readonly isAhead: boolean;
}

/** Pods that wait for sessions, in every kind but cold ones. */
export const WARM = 4;

const berth = (parking: NonNullable<SessionsInput["parking"]>, more: Partial<SessionsInput> = {}): BerthKind => {
  return { server: "Berth", sessions: { warm: WARM, parking, ...more } };
};
const GVISOR = { isolation: "gVisor" } as const;
const bare = (way: Way, isAhead = false): BareKind => ({ server: "bare loop", way, isAhead });

export const KINDS: readonly Kind[] = [
  { name: "key", title: "Berth, parking: Key", by: berth("Key") },
  { name: "shell", title: "Berth, parking: Shell", by: berth("Shell") },
  { name: "program", title: "Berth, parking: Program", by: berth("Program"), hasProgramMarker: true },
  { name: "gvisor-key", title: "Berth, parking: Key, gVisor", by: berth("Key", GVISOR), isExtra: true },
  { name: "gvisor-shell", title: "Berth, parking: Shell, gVisor", by: berth("Shell", GVISOR), isExtra: true },
  {
    name: "gvisor-program",
    title: "Berth, parking: Program, gVisor",
    by: berth("Program", GVISOR),
    hasProgramMarker: true,
    isExtra: true,
  },
  { name: "warm-0", title: "Berth, warm: 0", by: { server: "Berth", sessions: { warm: 0 } } },
  { name: "floor-shell", title: "bare loop, shell, connection opened before", by: bare("shell", true) },
  {
    name: "floor-program",
    title: "bare loop, program, connection opened before",
    by: bare("program", true),
    hasProgramMarker: true,
  },
  { name: "attach-late", title: "bare loop, shell, attached when needed", by: bare("shell") },
  { name: "sandbox", title: "bare loop, HTTP call to a running sandbox", by: bare("sandbox") },
  { name: "cold", title: "bare loop, cold Pod", by: bare("cold") },
];
