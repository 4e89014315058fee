/**
 * Pods whose sessions sleep between work items. Each work item runs in an ephemeral container, a *turn*, so that the Pod
 * outlives it. The regular session container is the *keeper*: it holds the template's resources and runs no program.
 * The next turn waits in its shell until the session's next work item comes. With `parking: Program`, the first turn's
 * program is started ahead of its work item, and reads it itself.
 */
import {
  ANNOTATION_DEADLINE,
  ANNOTATION_ENDED_TURN,
  ANNOTATION_PARKING,
  ANNOTATION_SESSION_CONTAINER,
  ANNOTATION_TURN_CONTAINER,
  ANNOTATION_TURN_SCRIPT,
  KEEPER_VOLUME,
  LABEL_PHASE,
} from "../api/names.ts";
import { defined } from "../core/json.ts";
import type { Container, ContainerStatus, EnvVar, Pod, PodSpec } from "../kube/resource.ts";
import { waitingCommand, waitingScript } from "./frame.ts";
import type { Parking } from "./parking.ts";

const TURN_PREFIX = "berth-turn-";

/**
 * The most turns of one Pod. Ended turns stay in the Pod's object, and keep their logs and their writable layers on its
 * node.
 */
export const MOST_TURNS = 100;

const KEEPER_PATH = "/var/run/berth.dev";
const DEADLINE_FILE = "deadline";
const ENDED_TURN_FILE = "ended-turn";
const TURN_FILE = "turn";

/** The exit code of a keeper that ended its Pod at the deadline. */
export const EXIT_DEADLINE = 4;

/** The `$0` of the keeper, for people who list processes. */
const KEEPER_NAME = "berth-keeper";

/**
 * The keeper's script. It ends when the Pod is deleted, or at its deadline if no operator deletes the Pod. When it
 * ends, the kubelet ends the Pod's other containers too. It reads the deadline again every five minutes, since an
 * operator may have changed it, and needs little CPU.
 */
const KEEPER = [
  "{ set +xv; } 2>/dev/null; trap 'exit 143' TERM",
  "for _c in date sleep; do command -v $_c >/dev/null ||",
  '{ echo "$_c: not found in the image" >&2; exit 127; }; done',
  "while :; do _s=300; _d=",
  `{ IFS= read -r _d <${KEEPER_PATH}/${DEADLINE_FILE}; } 2>/dev/null`,
  "_n=`date +%s`; case $_d in ''|*[!0-9]*) ;;",
  `*) _s=$((_d-_n)); [ $_s -le 0 ] && exit ${EXIT_DEADLINE}; [ $_s -gt 300 ] && _s=300 ;; esac`,
  "sleep $_s & wait $!; done",
].join("\n");

/** The `$0` of the shell that starts a program ahead of its work item. */
const STARTER_NAME = "berth-program";

/**
 * Ends a turn at once whose end is on record. The kubelet starts an ended turn again if it has lost the container's
 * record. While such a turn runs, the API server refuses the Pod's status, in which an ended container may not run
 * again (since Kubernetes 1.34), so no other turn's start or end would ever show.
 */
const END_AGAIN = [
  `{ set +xv; IFS= read -r _e <${KEEPER_PATH}/${ENDED_TURN_FILE}; } 2>/dev/null`,
  '[ "$_e" -ge "$_t" ] 2>/dev/null && exit 0; unset _e _t',
].join("\n");

/**
 * The annotations of a Pod with turns. Its turns read their script from one of them, through the keeper's volume: in
 * each turn's command, it was a quarter of the Pod's object, which the API server writes with each patch.
 */
export function turnAnnotations(parking: Parking): Record<string, string> {
  const script = waitingScript(parking === "Program" ? "line" : "variables");
  return { [ANNOTATION_ENDED_TURN]: "0", [ANNOTATION_TURN_SCRIPT]: `${END_AGAIN}\n${script}\n` };
}

/** Whether the Pod's work items run as turns, so that its session can sleep in it. */
export function hasTurns({ metadata: { annotations } }: Pick<Pod, "metadata">): boolean {
  return annotations?.[ANNOTATION_ENDED_TURN] !== undefined;
}

/** Whether the Pod's session sleeps: it waits for its next work item. */
export function isAsleep({ metadata: { labels } }: Pick<Pod, "metadata">): boolean {
  return labels?.[LABEL_PHASE] === "sleeping";
}

/** The last turn whose end is recorded on the Pod; 0: none. */
export function endedTurn({ metadata: { annotations } }: Pick<Pod, "metadata">): number {
  return Number.parseInt(annotations?.[ANNOTATION_ENDED_TURN] ?? "", 10) || 0;
}

/** The newest turn of the Pod; 0: none was added yet, or the Pod has no turns. A number may have been skipped. */
export function newestTurn({ spec }: Pick<Pod, "spec">): number {
  return Math.max(0, ...(spec.ephemeralContainers ?? []).map(({ name }) => turnNumber(name)));
}

/** Whether a turn waits for a work item, or serves one. */
export function hasOpenTurn(pod: Pod): boolean {
  return newestTurn(pod) > endedTurn(pod);
}

/**
 * Whether the turn's program starts with its container, and waits for its work item itself (`parking: Program`). Only
 * the first turn's does, since nothing of a session runs while it sleeps. The programs of later turns are started with
 * their work items.
 */
export function startsAhead({ metadata: { annotations } }: Pick<Pod, "metadata">, turn: number): boolean {
  return turn === 1 && annotations?.[ANNOTATION_PARKING] === "Program";
}

/** The name of a turn's container. */
export function turnName(turn: number): string {
  return `${TURN_PREFIX}${turn}`;
}

/** The number of the turn in this container; 0: it is no turn. */
export function turnNumber(container: string): number {
  return container.startsWith(TURN_PREFIX) ? Number.parseInt(container.slice(TURN_PREFIX.length), 10) || 0 : 0;
}

/**
 * The name of the Secret of a claim of this Pod. Each turn has its own, which locks the turn: a name is used once.
 * @param turn 0 or 1 for the Pod's first work item
 */
export function slotName(pod: string, turn: number): string {
  return turn > 1 ? `${pod}-t${turn}` : pod;
}

/** The turn that waits for a work item or serves one; before it is added, the number that it will have. */
export function openTurn(pod: Pod): number {
  return hasOpenTurn(pod) ? newestTurn(pod) : Math.max(newestTurn(pod), endedTurn(pod)) + 1;
}

/** The name of the Secret that the Pod's next claim, or its removal, creates. */
export function slotOf(pod: Pod): string {
  const { name = "" } = pod.metadata;
  return hasTurns(pod) ? slotName(name, openTurn(pod)) : name;
}

const SLOT = /^(.+)-t([1-9]\d{0,5})$/;

/** The Pod of a claim's Secret, and its turn; 0: the first, or the Pod has no turns. No Pod's name ends like a turn. */
export function podOfSlot(name: string): { readonly pod: string; readonly turn: number } {
  const [, pod = name, turn = "0"] = SLOT.exec(name) ?? [];
  return { pod, turn: Number(turn) };
}

/** Whether the Pod lives on after this turn, so that its session can sleep in it. */
export function livesOn(pod: Pod, turn: number): boolean {
  if (!hasTurns(pod) || turn === 0 || pod.metadata.deletionTimestamp) return false;
  const { phase, reason } = pod.status ?? {};
  return phase === "Running" && reason !== "NodeLost" && keeperStatus(pod)?.state?.running !== undefined;
}

/** Whether the turn that waits for a work item has ended without one, although its Pod lives: it was killed. */
export function isWaitingTurnDead(pod: Pod): boolean {
  if (!hasOpenTurn(pod) || !isAsleep(pod) || keeperStatus(pod)?.state?.running === undefined) return false;
  return turnStatus(pod, newestTurn(pod))?.state?.terminated !== undefined;
}

/** A turn that ended on record, but runs: the kubelet started it again, because it lost the container's record. */
export function hasRerunTurn(pod: Pod): boolean {
  const ended = endedTurn(pod);
  return (pod.status?.ephemeralContainerStatuses ?? []).some(
    ({ name, state }) => state?.running !== undefined && turnNumber(name) > 0 && turnNumber(name) <= ended,
  );
}

/** The status of a turn's container; undefined: the kubelet has reported none. */
export function turnStatus({ status }: Pod, turn: number): ContainerStatus | undefined {
  const name = turnName(turn);
  return status?.ephemeralContainerStatuses?.find((each) => each.name === name);
}

/** The id of a turn's container; undefined: it was not created yet. */
export function turnContainerId(pod: Pod, turn: number): string | undefined {
  return turnStatus(pod, turn)?.containerID;
}

/**
 * Whether the claimed turn runs in another container than the one that was given the session: the kubelet started it
 * again, because it had lost the container's record.
 */
export function isRerun(pod: Pod, turn: number): boolean {
  const { annotations, labels } = pod.metadata;
  const [claimed, id] = [annotations?.[ANNOTATION_TURN_CONTAINER], turnContainerId(pod, turn)];
  return labels?.[LABEL_PHASE] === "running" && claimed !== undefined && id !== undefined && id !== claimed;
}

/** The status of the container that keeps the Pod. */
export function keeperStatus(pod: Pod): ContainerStatus | undefined {
  const keeper = pod.metadata.annotations?.[ANNOTATION_SESSION_CONTAINER];
  return pod.status?.containerStatuses?.find(({ name }) => name === keeper);
}

/**
 * The session container as a keeper. The program's command stays in its arguments, from which the turns take it.
 * @param container with the template's `command`
 */
export function keeperOf(container: Container): Container {
  const { args = [], command = [], ...rest } = container;
  const mount = { name: KEEPER_VOLUME, mountPath: KEEPER_PATH, readOnly: true };
  return {
    ...rest,
    command: ["/bin/sh", "-c", KEEPER, KEEPER_NAME, ...command, ...args],
    volumeMounts: [...mountsOf(container), mount],
  };
}

/** The volume from which the keeper reads its deadline, and a turn its script, and whether it has ended before. */
export function keeperVolume(): Record<string, unknown> {
  const item = (path: string, annotation: string) => ({
    path,
    fieldRef: { fieldPath: `metadata.annotations['${annotation}']` },
  });
  const items = [
    item(DEADLINE_FILE, ANNOTATION_DEADLINE),
    item(ENDED_TURN_FILE, ANNOTATION_ENDED_TURN),
    item(TURN_FILE, ANNOTATION_TURN_SCRIPT),
  ];
  return { name: KEEPER_VOLUME, downwardAPI: { items } };
}

/**
 * A turn's container, from the live Pod: admission may have added tokens, mounts and certificates to the keeper. The
 * same Pod always gives the same container, so that two operators that add it at the same time add the same one.
 * @throws Error if the Pod has no keeper
 */
export function renderTurn(live: Pod, turn: number): Container {
  const name = live.metadata.annotations?.[ANNOTATION_SESSION_CONTAINER];
  const keeper = live.spec.containers.find((container) => container.name === name);
  if (keeper?.command?.[3] !== KEEPER_NAME) throw new Error(`Pod ${live.metadata.name} has no keeper container`);
  const { image, workingDir, envFrom, env, volumeDevices, securityContext } = keeper;
  const { terminationMessagePath, terminationMessagePolicy } = keeper;
  return defined({
    // The keeper has pulled the image: all turns of a Pod use the same one, also while the registry is away.
    ...{ name: turnName(turn), image, imagePullPolicy: "IfNotPresent" },
    ...{ workingDir, envFrom, volumeDevices, securityContext },
    ...{ terminationMessagePath, terminationMessagePolicy },
    env: env?.map((variable) => ofKeeper(variable, keeper.name)),
    command: commandOf(live, turn, keeper.command.slice(4)),
    volumeMounts: mountsOf(keeper),
    stdin: true,
  }) as unknown as Container;
}

/** @param argv the template's `command` and `args` */
function commandOf(live: Pod, turn: number, argv: readonly string[]): string[] {
  const number = `_t=${turn}; `;
  if (startsAhead(live, turn)) return ["/bin/sh", "-c", `${number}${END_AGAIN}\nexec "$@"`, STARTER_NAME, ...argv];
  return waitingCommand(argv, `${number}. ${KEEPER_PATH}/${TURN_FILE}`);
}

/** The patch that adds a turn to the Pod, with the strategic merge type and the subresource `ephemeralcontainers`. */
export function turnPatch(live: Pod, turn: number): { metadata: object; spec: Pick<PodSpec, "ephemeralContainers"> } {
  const { uid, resourceVersion } = live.metadata;
  return { metadata: { uid, resourceVersion }, spec: { ephemeralContainers: [renderTurn(live, turn)] } };
}

/** A turn has no resources, so a variable that shows resources means those of the keeper. */
function ofKeeper(variable: EnvVar, keeper: string): EnvVar {
  const { valueFrom } = variable;
  const resource = valueFrom?.["resourceFieldRef"] as Record<string, unknown> | undefined;
  if (!resource || resource["containerName"]) return variable;
  return { ...variable, valueFrom: { ...valueFrom, resourceFieldRef: { ...resource, containerName: keeper } } };
}

/** The mounts of a container; none if the field is no list. */
export function mountsOf(container: { readonly [field: string]: unknown }): Record<string, unknown>[] {
  const mounts = container["volumeMounts"];
  return Array.isArray(mounts) ? mounts : [];
}
