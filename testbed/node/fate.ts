import { z } from "zod";
import { ANNOTATION_DEFAULT_CONTAINER, ANNOTATION_SESSION_CONTAINER } from "../../src/api/names.ts";
import type { Container, Pod } from "../../src/kube/objects.ts";

/** JSON of a Fate for the session container of a Pod; with `.<container>` appended, for the container of that name. */
export const FATE_ANNOTATION = "testbed.berth.dev/fate";

/** What a scripted container does when it gets SIGTERM: end with a code after a while, or nothing at all. */
const termSchema = z.union([
  z.literal("ignore"),
  z.strictObject({ code: z.int().min(0).max(255), afterMs: z.number().min(0).default(0) }),
]);

const range = z.union([z.number().min(0), z.strictObject({ min: z.number().min(0), max: z.number().min(0) })]);

/** Fields of every fate. Times are milliseconds, divided by the node's time scale. */
const common = {
  /** Time to pull the image, before anything else. */
  pullMs: range.optional(),
  /** Added to the time from the look that finds everything to the container running. */
  startDelayMs: range.optional(),
  /** Default: ends with 143 at once, as a program that leaves SIGTERM to its default action under a shell. */
  onTerm: termSchema.optional(),
  /** Becomes the message of the container's end, as a termination log would. */
  message: z.string().optional(),
};

const fateSchema = z.discriminatedUnion("kind", [
  /** Runs until it is told to end. */
  z.strictObject({ kind: z.literal("run"), ...common }),
  /** Ends by itself. `afterMs` 0 is a crash at once. */
  z.strictObject({
    kind: z.literal("exit"),
    code: z.int().min(0).max(255).default(0),
    afterMs: range.default(0),
    ...common,
  }),
  /** The memory limit: 137, OOMKilled. */
  z.strictObject({ kind: z.literal("oom"), afterMs: range.default(0), ...common }),
  /** The kernel kills a child only; the main process goes on and ends with `code`. kubelet says OOMKilled all the same. */
  z.strictObject({
    kind: z.literal("oom-child"),
    code: z.int().min(0).max(255).default(0),
    afterMs: range.default(0),
    ...common,
  }),
  /** SIGKILL from somewhere: 137, Error. */
  z.strictObject({ kind: z.literal("killed"), afterMs: range.default(0), ...common }),
  /** The node evicts the whole Pod. */
  z.strictObject({
    kind: z.literal("evicted"),
    afterMs: range.default(0),
    cause: z.enum(["ephemeral-storage", "emptydir", "memory"]).default("ephemeral-storage"),
    ...common,
  }),
  /** kubelet does not take the Pod, since the scheduler's view of the node was old. */
  z.strictObject({ kind: z.literal("refused"), reason: z.string().default("OutOfcpu"), ...common }),
  /** The command is not in the image: 128, StartError. */
  z.strictObject({ kind: z.literal("start-error"), ...common }),
  /** The image runs as root: refused where the Pod says runAsNonRoot and gives it no other user; else it runs. */
  z.strictObject({ kind: z.literal("root-image"), ...common }),
  /** The image's user is a name, which tells kubelet nothing: refused as a root image is. */
  z.strictObject({ kind: z.literal("named-user-image"), user: z.string().default("node"), ...common }),
  /** The runtime cannot create the container: a mount, a device, no command. */
  z.strictObject({ kind: z.literal("create-error"), ...common }),
  /** The image cannot be had; after `times` failed pulls it can. */
  z.strictObject({
    kind: z.literal("pull-error"),
    reason: z.enum(["ErrImagePull", "ErrImageNeverPull", "InvalidImageName"]).default("ErrImagePull"),
    times: z.int().min(1).optional(),
    ...common,
  }),
  /** The Pod's sandbox cannot be made, which its Events alone tell; after `times` failures it can. `message`: why not. */
  z.strictObject({ kind: z.literal("sandbox"), times: z.int().min(1).optional(), ...common }),
  /** Stays in ContainerCreating (PodInitializing) for ever. */
  z.strictObject({ kind: z.literal("never-starts"), ...common }),
  /** A stock worker without a process: see scripted-worker.ts. */
  z.strictObject({
    kind: z.literal("worker"),
    /** How long it works after its first answered beat. */
    workMs: range.default(1_000),
    /** How it ends after its work. `hang`: works on until it is told to end. */
    end: z.enum(["stop", "oom", "killed", "exit-without-stop", "hang"]).default("stop"),
    /** Time from the container running to the first beat. */
    firstBeatMs: range.default(190),
    /** Never beats at all, like a program that is no stock worker. */
    neverBeats: z.boolean().default(false),
    /** Whether it asks for its session first, as the stock worker does. */
    retrieveSession: z.boolean().default(true),
    ...common,
  }),
  /** An always-on worker without a process: see scripted-poller.ts. */
  z.strictObject({
    kind: z.literal("poller"),
    /** How long it works for each item after its first answered beat. */
    workMs: range.default(1_000),
    /** Where it says at the Pod's address whether it is busy; nowhere unless set. */
    busyPort: z.int().min(1).max(65_535).optional(),
    ...common,
  }),
]);

/** Every kind there is, for the documentation's test. */
export const FATE_KINDS: readonly string[] = fateSchema.options.map(({ shape }) => shape.kind.value);

/** What happens to a container, filled with defaults. */
export type Fate = z.infer<typeof fateSchema>;
/** A fate as people write it, in an annotation or in code. */
export type FateInput = z.input<typeof fateSchema>;
/** What a scripted container does on SIGTERM. */
export type OnTerm = z.infer<typeof termSchema>;
/** Milliseconds, fixed or drawn evenly from a range. */
export type Milliseconds = z.infer<typeof range>;
export type WorkerFate = Extract<Fate, { kind: "worker" }>;
export type PollerFate = Extract<Fate, { kind: "poller" }>;

/** Chooses fates in code. Undefined leaves the choice to the annotation, then to the default. */
export type FateChooser = (pod: Pod, container: Container) => FateInput | undefined;

/** Fills the defaults in. Throws a TypeError that says which field is wrong. */
export function parseFate(input: unknown): Fate {
  const result = fateSchema.safeParse(input);
  if (!result.success) throw new TypeError(`not a fate: ${z.prettifyError(result.error)}`);
  return result.data;
}

/** The container that the session runs in: named by annotation, else the first. */
export function mainContainerName(pod: Pod): string | undefined {
  const annotations = pod.metadata.annotations ?? {};
  return (
    annotations[ANNOTATION_SESSION_CONTAINER] ??
    annotations[ANNOTATION_DEFAULT_CONTAINER] ??
    pod.spec.containers[0]?.name
  );
}

/** The fate that somebody chose for a container: in code first, then by annotation. Throws a TypeError on a bad one. */
export function chosenFate(pod: Pod, container: Container, chooser?: FateChooser): Fate | undefined {
  const chosen = chooser?.(pod, container);
  if (chosen !== undefined) return parseFate(chosen);
  const annotations = pod.metadata.annotations ?? {};
  const text =
    annotations[`${FATE_ANNOTATION}.${container.name}`] ??
    (container.name === mainContainerName(pod) ? annotations[FATE_ANNOTATION] : undefined);
  if (text === undefined) return undefined;
  try {
    return parseFate(JSON.parse(text));
  } catch (cause) {
    throw new TypeError(`annotation ${FATE_ANNOTATION} of container ${container.name} is no fate`, { cause });
  }
}

/** Fates that say what a container does from its start to its end; the others befall one that is started. */
export function isWholeLife({ kind }: Fate): boolean {
  return kind === "run" || kind === "exit" || kind === "oom-child" || kind === "worker" || kind === "poller";
}

/** Of containers nobody chose a fate for: init containers are done soon, everything else runs until told to end. */
export function defaultFate(runsToCompletion: boolean): Fate {
  return runsToCompletion ? { kind: "exit", code: 0, afterMs: INIT_CONTAINER_MS } : { kind: "run" };
}

/** A typical small init container: its process is there and gone. */
const INIT_CONTAINER_MS = 50;
