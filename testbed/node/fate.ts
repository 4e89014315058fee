import { z } from "zod";
import { ANNOTATION_DEFAULT_CONTAINER, ANNOTATION_SESSION_CONTAINER } from "../../src/api/names.ts";
import type { Container, Pod } from "../../src/kube/objects.ts";
import { newestTurn, turnName, turnNumber } from "../../src/pods/turns.ts";

/**
 * A Fate in JSON for the session container of a Pod and its turns. With the suffix `.<container>`, for the container of
 * that name.
 */
export const FATE_ANNOTATION = "testbed.berth.dev/fate";

/** What a scripted container does on SIGTERM: end with a code after a while, or ignore it. */
const termSchema = z.union([
  z.literal("ignore"),
  z.strictObject({ code: z.int().min(0).max(255), afterMs: z.number().min(0).default(0) }),
]);

const range = z.union([z.number().min(0), z.strictObject({ min: z.number().min(0), max: z.number().min(0) })]);

/** The fields of every fate. Times are in milliseconds and are divided by the node's time scale. */
const common = {
  /** The time to pull the image, before anything else. */
  pullMs: range.optional(),
  /** Added to the time between the look that finds everything and the running container. */
  startDelayMs: range.optional(),
  /** By default, the container ends with 143 at once, like a program under a shell that doesn't handle SIGTERM. */
  onTerm: termSchema.optional(),
  /** The message of the container's end, as from a termination log. */
  message: z.string().optional(),
};

const fateSchema = z.discriminatedUnion("kind", [
  /** Runs until it's told to end. */
  z.strictObject({ kind: z.literal("run"), ...common }),
  /** Ends on its own. `afterMs` 0 crashes at once. */
  z.strictObject({
    kind: z.literal("exit"),
    code: z.int().min(0).max(255).default(0),
    afterMs: range.default(0),
    ...common,
  }),
  /** Reaches the memory limit: 137, OOMKilled. */
  z.strictObject({ kind: z.literal("oom"), afterMs: range.default(0), ...common }),
  /**
   * The kernel kills only a child. The main process continues and ends with `code`, but the kubelet still reports
   * OOMKilled.
   */
  z.strictObject({
    kind: z.literal("oom-child"),
    code: z.int().min(0).max(255).default(0),
    afterMs: range.default(0),
    ...common,
  }),
  /** SIGKILL from outside: 137, Error. */
  z.strictObject({ kind: z.literal("killed"), afterMs: range.default(0), ...common }),
  /** The node evicts the whole Pod. */
  z.strictObject({
    kind: z.literal("evicted"),
    afterMs: range.default(0),
    cause: z.enum(["ephemeral-storage", "emptydir", "memory"]).default("ephemeral-storage"),
    ...common,
  }),
  /** The kubelet rejects the Pod because the scheduler's view of the node was outdated. */
  z.strictObject({ kind: z.literal("refused"), reason: z.string().default("OutOfcpu"), ...common }),
  /** The command isn't in the image: 128, StartError. */
  z.strictObject({ kind: z.literal("start-error"), ...common }),
  /**
   * The image runs as root. The kubelet rejects it if the Pod sets runAsNonRoot and no other user. Otherwise it runs.
   */
  z.strictObject({ kind: z.literal("root-image"), ...common }),
  /** The image's user is a name, which the kubelet can't resolve. It's rejected like a root image. */
  z.strictObject({ kind: z.literal("named-user-image"), user: z.string().default("node"), ...common }),
  /** The runtime can't create the container: a mount, a device, or no command. */
  z.strictObject({ kind: z.literal("create-error"), ...common }),
  /** The image can't be pulled. With `times`, it can after that number of failures. */
  z.strictObject({
    kind: z.literal("pull-error"),
    reason: z.enum(["ErrImagePull", "ErrImageNeverPull", "InvalidImageName"]).default("ErrImagePull"),
    times: z.int().min(1).optional(),
    ...common,
  }),
  /**
   * The Pod's sandbox can't be created, which only its Events report. With `times`, it can after that number of
   * failures. `message` is the cause.
   */
  z.strictObject({ kind: z.literal("sandbox"), times: z.int().min(1).optional(), ...common }),
  /** Stays in ContainerCreating (PodInitializing) forever. */
  z.strictObject({ kind: z.literal("never-starts"), ...common }),
  /** A stock worker without a process: see scripted-worker.ts. */
  z.strictObject({
    kind: z.literal("worker"),
    /** How long it works after its first answered heartbeat. */
    workMs: range.default(1_000),
    /** How it ends after its work. `hang` keeps working until it's told to end. */
    end: z.enum(["stop", "oom", "killed", "exit-without-stop", "hang"]).default("stop"),
    /** The time from the running container to the first heartbeat. */
    firstBeatMs: range.default(190),
    /** Never sends a heartbeat, like a program that isn't a stock worker. */
    neverBeats: z.boolean().default(false),
    /** Whether it requests its session first, like the stock worker. */
    retrieveSession: z.boolean().default(true),
    ...common,
  }),
  /** An always-on worker without a process: see scripted-poller.ts. */
  z.strictObject({
    kind: z.literal("poller"),
    /** How long it works on each item after its first answered heartbeat. */
    workMs: range.default(1_000),
    /** The port at the Pod's address on which it reports whether it's busy. It doesn't report by default. */
    busyPort: z.int().min(1).max(65_535).optional(),
    ...common,
  }),
]);

/** All kinds, for the test of the documentation. */
export const FATE_KINDS: readonly string[] = fateSchema.options.map(({ shape }) => shape.kind.value);

/** What happens to a container, with defaults applied. */
export type Fate = z.infer<typeof fateSchema>;
/** A fate as people write it, in an annotation or in code. */
export type FateInput = z.input<typeof fateSchema>;
/** What a scripted container does on SIGTERM. */
export type OnTerm = z.infer<typeof termSchema>;
/** Milliseconds, either fixed or drawn uniformly from a range. */
export type Milliseconds = z.infer<typeof range>;
export type WorkerFate = Extract<Fate, { kind: "worker" }>;
export type PollerFate = Extract<Fate, { kind: "poller" }>;

/** Chooses fates in code. If it returns undefined, the annotation decides, or else the default. */
export type FateChooser = (pod: Pod, container: Container) => FateInput | undefined;

/** Applies the defaults. Throws a TypeError that names the invalid field. */
export function parseFate(input: unknown): Fate {
  const result = fateSchema.safeParse(input);
  if (!result.success) throw new TypeError(`invalid fate: ${z.prettifyError(result.error)}`);
  return result.data;
}

/** Returns the container that the session runs in: the one that an annotation names, or else the first. */
export function mainContainerName(pod: Pod): string | undefined {
  const annotations = pod.metadata.annotations ?? {};
  return (
    annotations[ANNOTATION_SESSION_CONTAINER] ??
    annotations[ANNOTATION_DEFAULT_CONTAINER] ??
    pod.spec.containers[0]?.name
  );
}

/** Returns the container in which a session runs, or would: the Pod's newest turn, or else its session container. */
export function runningContainerName(pod: Pod): string | undefined {
  const turn = newestTurn(pod);
  return turn > 0 ? turnName(turn) : mainContainerName(pod);
}

/**
 * Returns the fate that was chosen for a container: in code, or else by annotation. Throws a TypeError if it's invalid.
 */
export function chosenFate(pod: Pod, container: Container, chooser?: FateChooser): Fate | undefined {
  const chosen = chooser?.(pod, container);
  if (chosen !== undefined) return parseFate(chosen);
  const annotations = pod.metadata.annotations ?? {};
  const text =
    annotations[`${FATE_ANNOTATION}.${container.name}`] ??
    (container.name === mainContainerName(pod) || turnNumber(container.name) > 0
      ? annotations[FATE_ANNOTATION]
      : undefined);
  if (text === undefined) return undefined;
  try {
    return parseFate(JSON.parse(text));
  } catch (cause) {
    throw new TypeError(`annotation ${FATE_ANNOTATION} of container ${container.name} is not a valid fate`, { cause });
  }
}

/**
 * Whether a fate determines what a container does from start to end. The other fates happen to a container that is
 * started.
 */
export function isWholeLife({ kind }: Fate): boolean {
  return kind === "run" || kind === "exit" || kind === "oom-child" || kind === "worker" || kind === "poller";
}

/** The fate of containers without a chosen one: init containers end soon, all others run until they're told to end. */
export function defaultFate(runsToCompletion: boolean): Fate {
  return runsToCompletion ? { kind: "exit", code: 0, afterMs: INIT_CONTAINER_MS } : { kind: "run" };
}

/** The duration of a typical small init container. */
const INIT_CONTAINER_MS = 50;
