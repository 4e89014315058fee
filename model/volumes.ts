import { crash, podsOf } from "./effects.ts";
import type { Moment } from "./moment.ts";
import type { Slot } from "./slot.ts";
import { ITEM, KNOWN, MARK, MEMORY, POD, STATE, type State, VOLUME } from "./state.ts";
import { Volume } from "./volume.ts";

// Sessions with volumes. Each Pod is made with a volume, which its first claim assigns to a session. The session's next
// Pod gets that volume, and takes the place of the one before.

/** What an operator knows of a volume that a request may still assign to this session. */
const doubtOf = (session: number): number => KNOWN.doubted + session - 1;

/** Whether a Pod uses the volume, or a claim of its session exists, as its operator sees it. */
function isInUse({ moment, operator, session, object, hasNoPod }: Volume): boolean {
  const { layout } = moment;
  if (object && !hasNoPod) return true;
  return [...podsOf(moment, operator)].some((pod) => {
    const record = moment.byte(layout.pod(pod) + POD.record);
    return record > 0 && layout.sessionOf(record - 1) === session;
  });
}

/** The volumes of an operator. */
function volumesOf({ moment, operator }: Slot): Volume[] {
  const { turns } = moment.rules;
  return [...podsOf(moment, operator)].filter((pod) => pod % turns === 0).map((pod) => new Volume(moment, pod));
}

/** The volume was written to: requests with its earlier resourceVersion are refused. */
function changeVolume({ rules, volumeAt }: Slot, next: State): void {
  if (rules.assignVersion) next[volumeAt + VOLUME.lateAssign] = 0;
  if (rules.markVersion) next[volumeAt + VOLUME.lateMark] = 0;
  if (rules.volumeDeleteVersion) next[volumeAt + VOLUME.lateDelete] = 0;
}

/** Whether the Pod may serve the item's session by its volume, as far as its operator knows. */
export function mayServe({ moment, pod, rules, hasVolumes }: Slot, item: number): boolean {
  if (!hasVolumes) return true;
  const volume = new Volume(moment, pod);
  const session = moment.layout.sessionOf(item);
  if (volume.view === KNOWN.settled) return volume.exists && (volume.session === session || !rules.boundPod);
  if (!volume.isThoughtUnassigned) return false;
  return volumesOf(volume).every(({ view, exists, session: own }) => {
    if (view === KNOWN.nothing) return rules.volumeList === "never";
    const isOwn = view === KNOWN.settled && exists && own === session;
    return view !== doubtOf(session) && !(isOwn && rules.warmPod === "without-volume");
  });
}

/** Whether the claimed session has the Pod's volume, so that its item may be acknowledged. */
export function hasItsVolume({ moment, pod, rules, hasVolumes, item, turn }: Slot): boolean {
  if (!hasVolumes || rules.assign === "with-opening") return true;
  const volume = new Volume(moment, pod);
  if (volume.view !== KNOWN.settled || !volume.exists) return false;
  const isOwn = volume.session === moment.layout.sessionOf(item) || !rules.boundPod;
  // A Pod that sleeps has used it since its first turn.
  return isOwn && (turn > 1 || !rules.claimTakes || isTaken(volume));
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
  if (!isDue) return;
  const volume = new Volume(moment, pod);
  if (volume.isThoughtUnassigned) assign(slot, volume);
  else if (volume.view === KNOWN.settled && volume.exists && rules.claimTakes && !isTaken(volume)) {
    const next = slot.fork();
    next[slot.volumeAt + VOLUME.mark] = MARK.inUse;
    changeVolume(slot, next);
    slot.tell(next, "workspace.take");
  }
}

function assign(slot: Slot, volume: Volume): void {
  const { moment, rules, volumeAt } = slot;
  const session = moment.layout.sessionOf(slot.item);
  const isRefused = !volume.exists || (volume.session !== 0 && rules.assignVersion);
  const next = slot.fork();
  next[volumeAt + VOLUME.known] = KNOWN.settled;
  if (isRefused) {
    // The operator reads the volume, and finds it gone or assigned.
    slot.tell(next, "workspace.assign", { outcome: "refused" });
    return;
  }
  const breaks = assignBreaks(volume, session);
  next[volumeAt + VOLUME.session] = session;
  changeVolume(slot, next);
  slot.tell(next, "workspace.assign", { breaks });
  const late = slot.fork();
  late[volumeAt + VOLUME.lateAssign] = session;
  if (rules.volumeDoubt) late[volumeAt + VOLUME.known] = doubtOf(session);
  slot.tell(late, "workspace.assign", { outcome: "lost", fault: true });
  slot.tell(crash(moment, late, slot.operator), "workspace.assign", { outcome: "crash, under way", fault: true });
}

function assignBreaks({ session }: Volume, next: number): string | null {
  return session !== 0 && session !== next ? "S13 a session's volume is given to another" : null;
}

/** What an operator does with the volume of a Pod, without a claim. */
export function volumeSteps(slot: Slot): void {
  if (!slot.hasVolumes || slot.turn > 1) return;
  const volume = new Volume(slot.moment, slot.pod);
  if (volume.view !== KNOWN.unassigned && volume.view !== KNOWN.settled && !volume.isThoughtUnassigned) adopt(volume);
  if (!volume.exists) return;
  const { volumeDeletion } = slot.rules;
  if (volumeDeletion && volume.view === KNOWN.unassigned) discard(volume);
  if (volume.view !== KNOWN.settled || volume.session === 0) return;
  if (volumeDeletion) markUnused(volume);
  if (volume.mark === MARK.expired && !isInUse(volume) && !volume.object) removeVolume(volume, false);
  createPod(volume);
}

/** Reads the volume, and writes to it if it has no session. So no earlier request assigns it any more. */
function adopt(volume: Volume): void {
  const { volumeAt, rules } = volume;
  const isUnassigned = volume.exists && volume.session === 0;
  const next = volume.fork();
  next[volumeAt + VOLUME.known] = isUnassigned ? KNOWN.unassigned : KNOWN.settled;
  if (isUnassigned && rules.volumeList === "adopts") changeVolume(volume, next);
  volume.tell(next, "workspace.adopt");
}

/** Deletes a volume that seems to have no session, and whose Pod seems to be gone: a cache may lag. */
function discard(volume: Volume): void {
  if (volume.session !== 0 && volume.rules.volumeDeleteVersion) {
    const next = volume.fork();
    next[volume.volumeAt + VOLUME.known] = KNOWN.settled;
    volume.tell(next, "workspace.delete", { outcome: "refused" });
  } else removeVolume(volume, true);
}

function removeVolume(volume: Volume, fault: boolean): void {
  const next = volume.fork();
  next[volume.volumeAt + VOLUME.object] = 0;
  next[volume.volumeAt + VOLUME.known] = KNOWN.settled;
  volume.tell(next, "workspace.delete", { fault, breaks: deleteBreaks(volume) });
  lateSteps(volume, "workspace.delete", VOLUME.lateDelete);
}

/** No Pod uses the volume any more. */
function markUnused(volume: Volume): void {
  const { rules, volumeAt } = volume;
  const isDue = !isInUse(volume) || rules.marks === "any-time";
  if (volume.mark !== MARK.inUse || !isDue) return;
  const next = volume.fork();
  next[volumeAt + VOLUME.mark] = MARK.unused;
  next[volumeAt + VOLUME.used] = volume.isRunning ? 1 : 0;
  changeVolume(volume, next);
  volume.tell(next, "workspace.leave");
  lateSteps(volume, "workspace.leave", VOLUME.lateMark);
}

/** The request may take effect later, or never. */
function lateSteps(volume: Volume, name: "workspace.delete" | "workspace.leave", byte: number): void {
  const late = volume.fork();
  late[volume.volumeAt + byte] = 1;
  volume.tell(late, name, { outcome: "lost", fault: true });
  volume.tell(crash(volume.moment, late, volume.operator), name, { outcome: "crash, under way", fault: true });
}

/** Makes a Pod with the volume of a session whose item is in the queue. The volume is taken first. */
function createPod(volume: Volume): void {
  const { moment, rules, volumeAt, operator } = volume;
  if (isInUse(volume) || !volume.hasNoPod || !volume.hasNoClaim || volume.isDeleted || !isAwaited(volume)) return;
  const taken = () => {
    const next = volume.fork();
    // If it has no mark, nothing is written.
    if (rules.podTakes && volume.mark !== MARK.inUse) {
      next[volumeAt + VOLUME.mark] = MARK.inUse;
      changeVolume(volume, next);
    }
    return next;
  };
  const made = taken();
  replacePod(volume, made);
  volume.tell(made, "prepare.create-pod");
  const late = taken();
  late[volumeAt + VOLUME.latePod] = 1;
  volume.tell(crash(moment, late, operator), "prepare.create-pod", { outcome: "crash, under way", fault: true });
}

/** The Pod is a new one, with a new name: no request about the one before concerns it. */
function replacePod({ moment, pod }: Slot, next: State): void {
  for (const turn of moment.layout.turnsOf(pod)) moment.layout.park(next, turn);
}

function isAwaited({ moment, session, rules }: Volume): boolean {
  const { layout } = moment;
  for (let item = 0; item < layout.items; item += 1) {
    const at = layout.item(item);
    const isOffered =
      moment.byte(at + ITEM.state) === STATE.queued && moment.byte(at + ITEM.stamp) < rules.acknowledgements;
    if (isOffered && layout.sessionOf(item) === session) return true;
  }
  return false;
}

/** What happens to a volume without an operator: late requests, and time. */
export function volumeNodeSteps(moment: Moment, pod: number): void {
  const { layout } = moment;
  if (!layout.hasVolumes || layout.turnOf(pod) > 1) return;
  const volume = new Volume(moment, pod);
  if (!volume.exists) return;
  const session = volume.late("lateAssign");
  lateStep(volume, VOLUME.lateAssign, "network.late-assign", assignBreaks(volume, session), (next) => {
    next[volume.volumeAt + VOLUME.session] = session;
  });
  lateStep(volume, VOLUME.lateMark, "network.late-mark", null, (next) => {
    next[volume.volumeAt + VOLUME.mark] = MARK.unused;
    next[volume.volumeAt + VOLUME.used] = volume.isRunning ? 1 : 0;
  });
  lateStep(volume, VOLUME.lateDelete, "network.late-delete", deleteBreaks(volume), (next) => {
    next[volume.volumeAt + VOLUME.object] = 0;
  });
  latePodSteps(volume);
  // Volumes are kept for longer than a request takes.
  if (volume.mark !== MARK.unused || volume.late("latePod")) return;
  const next = volume.fork();
  next[volume.volumeAt + VOLUME.mark] = MARK.expired;
  moment.hidden(next, "time.kept-long-enough", { pod });
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
  const { moment, volumeAt, pod } = volume;
  if (!moment.byte(volumeAt + byte)) return;
  const lost = volume.fork();
  lost[volumeAt + byte] = 0;
  moment.hidden(lost, name, { pod });
  const next = volume.fork();
  act(next);
  next[volumeAt + byte] = 0;
  changeVolume(volume, next);
  moment.hidden(next, name, { pod, breaks });
}

/** A Pod is created late, or never. One that comes beside another Pod of its session is removed unused. */
function latePodSteps(volume: Volume): void {
  const { moment, volumeAt, pod } = volume;
  if (!volume.late("latePod")) return;
  const lost = volume.fork();
  lost[volumeAt + VOLUME.latePod] = 0;
  moment.hidden(lost, "network.late-pod", { pod });
  if (!volume.hasNoPod || !volume.hasNoClaim) return;
  const next = volume.fork();
  next[volumeAt + VOLUME.latePod] = 0;
  replacePod(volume, next);
  moment.hidden(next, "network.late-pod", { pod });
}

/** What the deletion of a volume breaks: that of one with files must come after the time that it is kept. */
function deleteBreaks(volume: Volume): string | null {
  const isExpired = volume.mark === MARK.expired && !volume.wasUsed && !volume.isRunning;
  return volume.files && !isExpired ? "S15 a volume is deleted whose session may come back for its files" : null;
}
