import { crash, isClaimRunning, podsOf } from "./effects.ts";
import type { Moment } from "./moment.ts";
import type { Slot } from "./slot.ts";
import { ITEM, KNOWN, MARK, MEMORY, OBJECT, POD, STATE, type State, VOLUME, WITH } from "./state.ts";
import { isPlace, madeFor, Volume, volumeOf, volumesOf } from "./volume.ts";

// Sessions with volumes. Each Pod is made with a new volume, which its first claim assigns to a session. The session's
// next Pod mounts that volume, too.

/** What an operator knows of a volume that a request may still assign to this session. */
const doubtOf = (session: number): number => KNOWN.doubted + session - 1;

/** Whether a Pod uses the volume, or may start to, as its operator sees it. */
function isInUse(volume: Volume): boolean {
  const { moment, operator, session } = volume;
  const { layout } = moment;
  if (volume.isMounted) return true;
  return [...podsOf(moment, operator)].some((pod) => {
    const record = moment.byte(layout.pod(pod) + POD.record);
    return isClaimRunning(moment, pod) && layout.sessionOf(record - 1) === session;
  });
}

/** The volume was written to: requests with its earlier resourceVersion are refused. */
function changeVolume({ rules, at }: Volume, next: State): void {
  if (rules.assignVersion) next[at + VOLUME.lateAssign] = 0;
  if (rules.markVersion) next[at + VOLUME.lateMark] = 0;
  if (rules.volumeDeleteVersion) next[at + VOLUME.lateDelete] = 0;
}

/** Whether the Pod may serve the item's session by its volume, as far as its operator knows. */
export function mayServe({ moment, pod, rules, hasVolumes, turn }: Slot, item: number): boolean {
  // A Pod that sleeps serves the session that it is marked with.
  if (!hasVolumes || turn > 1) return true;
  const volume = volumeOf(moment, pod);
  if (volume === null) return false;
  const session = moment.layout.sessionOf(item);
  const assigned = volume.view === KNOWN.settled ? volume.session : 0;
  const bound = madeFor(moment, pod) || assigned;
  if (bound) return bound === session || !rules.boundPod;
  if (!volume.isThoughtUnassigned) return false;
  return volumesOf(moment, volume.operator).every((each) => {
    if (each.view === KNOWN.nothing) return rules.volumeList === "never";
    return each.view !== doubtOf(session) && !(isKnownOf(each, session) && rules.warmPod !== "any-session");
  });
}

/** Whether the volume keeps the session from getting another one. */
function isKnownOf({ view, session, isGoing, rules }: Volume, of: number): boolean {
  return view === KNOWN.settled && session === of && !(isGoing && rules.warmPod === "without-kept-volume");
}

/** Whether the volume is gone, or being deleted. Its operator finds out sooner or later. */
function isLost(volume: Volume): boolean {
  return volume.view === KNOWN.settled && (!volume.exists || volume.isGoing);
}

/** Whether the item's session could run in the Pod: as `mayServe`, if all is known. */
export function isServed(slot: Slot, item: number): boolean {
  const volume = slot.hasVolumes ? volumeOf(slot.moment, slot.pod) : null;
  return (volume === null || !isLost(volume)) && mayServe(slot, item);
}

/** Whether the operator removes a free Pod because of its volume: that is lost, or another Pod mounts it, too. */
export function isUnfit({ moment, pod, rules, hasVolumes }: Slot): boolean {
  const volume = hasVolumes ? volumeOf(moment, pod) : null;
  if (volume === null) return false;
  return (isLost(volume) && rules.lostPod === "removed") || volume.pods.length > 1;
}

/** Whether the claimed session has the Pod's volume, so that its item may be acknowledged. */
export function hasItsVolume({ moment, pod, rules, hasVolumes, item, turn }: Slot): boolean {
  // A Pod that sleeps has used it since its first turn.
  if (!hasVolumes || turn > 1 || rules.assign === "with-opening") return true;
  const volume = volumeOf(moment, pod);
  const session = moment.layout.sessionOf(item);
  if (volume !== null && !volume.exists) return madeFor(moment, pod) === session && rules.lostPod === "used";
  if (volume?.view !== KNOWN.settled) return false;
  const isOwn = volume.session === session || !rules.boundPod;
  return isOwn && (!rules.claimTakes || isTaken(volume));
}

/** Whether it is in use, and no earlier request can take effect that says otherwise. */
function isTaken(volume: Volume): boolean {
  const { rules } = volume;
  const isStale =
    (rules.markVersion && volume.late("lateMark")) || (rules.volumeDeleteVersion && volume.late("lateDelete"));
  return volume.mark === MARK.inUse && !isStale;
}

/** Steps of a claim: the volume is assigned to the session, or taken for it again. */
export function assignSteps(slot: Slot): void {
  if (!slot.hasVolumes || slot.turn > 1 || slot.hasKey) return;
  const { memory, rules, moment, pod } = slot;
  const isDue = rules.assign === "before-ack" ? memory === MEMORY.journaled : memory === MEMORY.acked;
  const volume = volumeOf(moment, pod);
  if (!isDue || volume === null) return;
  if (volume.isThoughtUnassigned) assign(volume, moment.layout.sessionOf(slot.item));
  else if (volume.view === KNOWN.settled && volume.session && rules.claimTakes && !isTaken(volume)) take(volume, false);
}

/** A claim of the session assigns the volume. */
export function assign(volume: Volume, session: number): void {
  const { moment, rules, at } = volume;
  const isLeft = volume.isGoing && rules.goingVolume === "left";
  const isRefused = !volume.exists || isLeft || (volume.session !== 0 && rules.assignVersion);
  const next = volume.fork();
  next[at + VOLUME.known] = KNOWN.settled;
  if (isRefused) {
    // The operator reads the volume, and finds it gone or assigned.
    volume.tell(next, "workspace.assign", { outcome: "refused" });
    return;
  }
  const breaks = assignBreaks(volume, session);
  next[at + VOLUME.session] = session;
  changeVolume(volume, next);
  volume.tell(next, "workspace.assign", { breaks });
  const late = volume.fork();
  late[at + VOLUME.lateAssign] = session;
  if (rules.volumeDoubt) late[at + VOLUME.known] = doubtOf(session);
  volume.tell(late, "workspace.assign", { outcome: "lost", fault: true });
  volume.tell(crash(moment, late, volume.operator), "workspace.assign", { outcome: "crash, under way", fault: true });
}

function assignBreaks({ session, isGoing }: Volume, next: number): string | null {
  if (isGoing) return "S15 a session gets a volume that is being deleted";
  return session !== 0 && session !== next ? "S13 a session's volume is given to another" : null;
}

/** What an operator does with a volume, without a claim. */
export function volumeSteps(volume: Volume): void {
  if (volume.view !== KNOWN.settled) {
    if (!volume.isThoughtUnassigned) adopt(volume);
    readStep(volume);
  } else if (!volume.exists && volume.session !== 0) readStep(volume);
  if (!volume.exists && volume.rules.newVolumes) create(volume);
  if (!volume.exists || volume.isGoing) return;
  const { volumeDeletion } = volume.rules;
  if (volume.view === KNOWN.unassigned) {
    if (volumeDeletion) discard(volume);
    if (volume.pods.length === 0 && volume.rules.newVolumes) createPod(volume);
  }
  if (volume.view !== KNOWN.settled || volume.session === 0) return;
  if (volumeDeletion) markUnused(volume);
  if (isExpired(volume) && !isInUse(volume) && volume.pods.length === 0) removeVolume(volume, false);
  const isNeeded = isInUse(volume) || isAwaited(volume);
  if (volume.mark !== MARK.inUse && (isNeeded || volume.rules.isTrace)) take(volume, !isNeeded);
  if (!isInUse(volume) && (volume.mark === MARK.inUse || !volume.rules.podTakes)) createPod(volume);
}

/** Reads the volume, and writes to it if it has no session. So no earlier request assigns it any more. */
function adopt(volume: Volume): void {
  const { at, rules } = volume;
  const isUnassigned = volume.exists && !volume.isGoing && volume.session === 0;
  const next = volume.fork();
  next[at + VOLUME.known] = isUnassigned ? KNOWN.unassigned : KNOWN.settled;
  if (isUnassigned && rules.volumeList === "adopts") changeVolume(volume, next);
  volume.tell(next, "workspace.adopt");
  if (!isUnassigned || rules.volumeList !== "adopts") return;
  next[at + VOLUME.known] = volume.view;
  volume.tell(next, "workspace.adopt", { outcome: "unanswered", fault: true });
}

/** A read or a list shows the volume's session, or that it is gone. */
function readStep(volume: Volume): void {
  if (volume.exists && !volume.isGoing && volume.session === 0) return;
  const next = volume.fork();
  next[volume.at + VOLUME.known] = KNOWN.settled;
  if (!volume.exists) next[volume.at + VOLUME.session] = 0;
  volume.tell(next, "workspace.read");
}

/** Creates a new volume. It takes the row of one that is gone. */
function create(volume: Volume): void {
  const { moment, at, operator, index } = volume;
  const { layout, rules } = moment;
  const isNamed = layout.podsOf(operator).some((pod) => moment.byte(layout.mount(pod) + WITH.volume) === index + 1);
  const isFirst = rules.isTrace || !volumesOf(moment, operator).some((each) => each.index < index && !each.exists);
  const isThoughtGone = volume.view === KNOWN.settled || volume.view === KNOWN.nothing;
  if (!isThoughtGone || isNamed || volume.isDeleted || !isFirst) return;
  const next = volume.fork();
  next[at + VOLUME.object] = OBJECT.exists;
  next[at + VOLUME.known] = KNOWN.unassigned;
  volume.tell(next, "workspace.create");
}

/** Deletes a volume that seems to have no session, and whose Pod seems to be gone: a cache may lag. */
function discard(volume: Volume): void {
  if (volume.session !== 0 && volume.rules.volumeDeleteVersion) {
    const next = volume.fork();
    next[volume.at + VOLUME.known] = KNOWN.settled;
    volume.tell(next, "workspace.delete", { outcome: "refused" });
  } else removeVolume(volume, true);
}

function removeVolume(volume: Volume, fault: boolean): void {
  const next = volume.fork();
  deleteObject(volume, next);
  next[volume.at + VOLUME.known] = KNOWN.settled;
  volume.tell(next, "workspace.delete", { fault, breaks: deleteBreaks(volume) });
  lateSteps(volume, "workspace.delete", VOLUME.lateDelete);
}

/** The volume exists until no Pod mounts it. */
function deleteObject(volume: Volume, next: State): void {
  next[volume.at + VOLUME.object] = OBJECT.terminating;
  changeVolume(volume, next);
}

/** A trace tells the time. */
function isExpired({ mark, rules }: Volume): boolean {
  return mark === MARK.expired || (rules.isTrace && mark === MARK.unused);
}

/** No Pod uses the volume any more. */
function markUnused(volume: Volume): void {
  const { rules, at } = volume;
  const isDue = !isInUse(volume) || rules.marks === "any-time";
  if (volume.mark !== MARK.inUse || !isDue) return;
  const next = volume.fork();
  next[at + VOLUME.mark] = MARK.unused;
  next[at + VOLUME.used] = volume.isRunning ? 1 : 0;
  changeVolume(volume, next);
  volume.tell(next, "workspace.leave");
  lateSteps(volume, "workspace.leave", VOLUME.lateMark);
}

/** The volume is in use, or about to be. */
function take(volume: Volume, fault: boolean): void {
  const next = volume.fork();
  next[volume.at + VOLUME.mark] = MARK.inUse;
  changeVolume(volume, next);
  volume.tell(next, "workspace.take", { fault });
}

/** The request may take effect later, or never. */
function lateSteps(volume: Volume, name: "workspace.delete" | "workspace.leave", byte: number): void {
  const late = volume.fork();
  late[volume.at + byte] = 1;
  volume.tell(late, name, { outcome: "lost", fault: true });
  volume.tell(crash(volume.moment, late, volume.operator), name, { outcome: "crash, under way", fault: true });
}

/** Creates a Pod with this volume: for its session, whose item is in the queue, or for any if it has none. */
function createPod(volume: Volume): void {
  const { moment, at, operator, session, rules } = volume;
  if (volume.isDeleted) return;
  const fault = session !== 0 && !isAwaited(volume);
  if (fault && !rules.isTrace) return;
  for (const pod of placesOf(volume)) {
    const made = volume.fork();
    placePod(volume, made, pod, session);
    volume.tell(made, "prepare.create-pod", { pod, fault });
  }
  if (session === 0 || !rules.latePods) return;
  const late = volume.fork();
  late[at + VOLUME.latePod] = 1;
  volume.tell(crash(moment, late, operator), "prepare.create-pod", { outcome: "crash, under way", fault: true });
}

/** Where a new Pod may be: at the first free place, or, for a trace, at any. */
function placesOf({ moment, operator, rules }: Volume): number[] {
  const places = moment.layout.podsOf(operator).filter((pod) => isPlace(moment, pod));
  return rules.isTrace ? places : places.slice(0, 1);
}

/** The Pod is a new one, with a new name: no request about the one before concerns it. */
function placePod({ moment, index }: Volume, next: State, pod: number, session: number): void {
  const { layout } = moment;
  for (const turn of layout.turnsOf(pod)) layout.park(next, turn);
  next[layout.mount(pod) + WITH.volume] = index + 1;
  next[layout.mount(pod) + WITH.session] = session;
}

function isAwaited({ moment, session }: Volume): boolean {
  const { layout } = moment;
  for (let item = 0; item < layout.items; item += 1) {
    if (isWaiting(moment, item) && layout.sessionOf(item) === session) return true;
  }
  return false;
}

/** Whether the item is in the queue, and may still be acknowledged. */
export function isWaiting(moment: Moment, item: number): boolean {
  const { layout, rules } = moment;
  const at = layout.item(item);
  return moment.byte(at + ITEM.state) === STATE.queued && moment.byte(at + ITEM.stamp) < rules.acknowledgements;
}

/** What happens to volumes without an operator: users, late requests, and time. */
export function volumeNodeSteps(moment: Moment): void {
  for (let index = 0; index < moment.layout.volumes; index += 1) stepsOfNone(new Volume(moment, index));
}

function stepsOfNone(volume: Volume): void {
  const { rules, at } = volume;
  if (!volume.exists) return;
  const session = volume.late("lateAssign");
  lateStep(volume, VOLUME.lateAssign, "network.late-assign", assignBreaks(volume, session), (next) => {
    next[at + VOLUME.session] = session;
  });
  lateStep(volume, VOLUME.lateMark, "network.late-mark", null, (next) => {
    next[at + VOLUME.mark] = MARK.unused;
    next[at + VOLUME.used] = volume.isRunning ? 1 : 0;
  });
  lateStep(volume, VOLUME.lateDelete, "network.late-delete", deleteBreaks(volume), (next) => {
    deleteObject(volume, next);
  });
  latePodSteps(volume);
  if (rules.volumeLoss) lossSteps(volume);
  // Volumes are kept for longer than a request takes.
  if (volume.mark !== MARK.unused || volume.late("latePod") || rules.isTrace) return;
  const next = volume.fork();
  next[at + VOLUME.mark] = MARK.expired;
  volume.hide(next, "time.kept-long-enough");
}

/** A user deletes the volume. Without its finalizer, it is gone at once, although Pods mount it. */
function lossSteps(volume: Volume): void {
  const { at, isGoing } = volume;
  if (!isGoing) {
    const next = volume.fork();
    deleteObject(volume, next);
    volume.hide(next, "user.delete-volume", { fault: true });
  }
  if (volume.pods.length === 0) return;
  const gone = volume.fork();
  gone[at + VOLUME.object] = OBJECT.none;
  volume.hide(gone, "user.delete-volume", { fault: true });
}

type LateStep = "network.late-assign" | "network.late-mark" | "network.late-delete";

/** A request takes effect or is lost. */
function lateStep(
  volume: Volume,
  byte: number,
  name: LateStep,
  breaks: string | null,
  act: (next: State) => void,
): void {
  const { moment, at } = volume;
  if (!moment.byte(at + byte)) return;
  const lost = volume.fork();
  lost[at + byte] = 0;
  volume.hide(lost, name);
  const next = volume.fork();
  act(next);
  next[at + byte] = 0;
  changeVolume(volume, next);
  volume.hide(next, name, { breaks });
}

/** A Pod is created late, or never, maybe beside another Pod with the volume. */
function latePodSteps(volume: Volume): void {
  if (!volume.late("latePod")) return;
  const lost = volume.fork();
  lost[volume.at + VOLUME.latePod] = 0;
  volume.hide(lost, "network.late-pod");
  // Pods that mount a volume that is being deleted don't start.
  if (volume.isGoing) return;
  for (const pod of placesOf(volume)) {
    const next = volume.fork();
    next[volume.at + VOLUME.latePod] = 0;
    placePod(volume, next, pod, volume.session);
    volume.hide(next, "network.late-pod", { pod });
  }
}

/** What the deletion of a volume breaks: that of one with files must come after the time that it is kept. */
function deleteBreaks(volume: Volume): string | null {
  const isKept = !isExpired(volume) || volume.wasUsed || volume.isRunning;
  return volume.files && isKept ? "S15 a volume is deleted whose session may come back for its files" : null;
}
