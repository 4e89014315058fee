import { GROUP } from "../api/names.ts";
import { errorText } from "../core/errors.ts";
import { apiErrorText, isBadRequest, isForbidden, isInvalid, isMaybeApplied, isQuotaExceeded } from "../kube/errors.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import { deletePod } from "../pods/delete.ts";
import { newPodName } from "../pods/pod-render.ts";
import { isPerSession, type OwnVolume } from "../pods/workspace-pods.ts";
import { allowsAll } from "../policy/pod-policy.ts";
import { FEWEST_UNDER_WAY } from "../protocol/claim-priority.ts";
import type { PoolContext } from "../protocol/context.ts";
import { type SessionVolumes, WorkspaceError } from "../sleep/session-volumes.ts";
import type { TurnAdding } from "../sleep/turn-adding.ts";
import { NO_PERMISSION } from "../sleep/workspaces.ts";
import type { Expectations } from "./expectations.ts";
import { withPodLimits } from "./pod-limits.ts";

export interface PodCreationOptions {
  readonly context: PoolContext;
  readonly expected: Expectations;
  readonly turns: Pick<TurnAdding, "add">;
  readonly volumes: Pick<SessionVolumes, "take" | "create" | "spare" | "takeSpare">;
  /** Called when this session's volume is unavailable for now. */
  readonly onNoVolume: (sessionId: string) => void;
  readonly onChange: () => void;
}

/** Creates session Pods from the current template. Failures go to `Holds`. */
export class PodCreation {
  readonly #options: PodCreationOptions;
  readonly #context: PoolContext;
  readonly #quota = new QuotaDoubt();
  /** The hash of the last template whose Pods are refused with limits of the whole Pod. */
  #unlimited: string | null = null;

  constructor(options: PodCreationOptions) {
    this.#options = options;
    this.#context = options.context;
  }

  /** Creates a Pod for this session, with its volume. Never throws. */
  async createFor(sessionId: string): Promise<void> {
    try {
      const own = await this.#options.volumes.take(sessionId);
      if (own) await this.#createPod(newPodName(this.#context.name), own);
    } catch (error) {
      this.#noVolume(error, sessionId, sessionId);
    }
  }

  /** Creates a Pod for any session, or for any that has no volume yet. Never throws. */
  async create(): Promise<void> {
    const { name, environment } = this.#context;
    if (!isPerSession(environment())) return this.#createPod(newPodName(name));
    // The volume comes first, since a Pod can't get one later.
    const podName = this.#options.volumes.takeSpare() ?? newPodName(name);
    try {
      await this.#createPod(podName, await this.#options.volumes.create(podName));
    } catch (error) {
      this.#noVolume(error, podName);
    }
  }

  /** @param name what messages leave out, since it differs at each try */
  #noVolume(error: unknown, name: string, sessionId?: string): void {
    const { metrics, labels, logger } = this.#context;
    const quota = isQuotaExceeded(error);
    metrics.podCreateFailures.inc({ ...labels, reason: quota ? "quota" : "volume" });
    const message = apiErrorText(error, name);
    const words = isForbidden(error) ? `${message}; ${NO_PERMISSION}` : message;
    const problem = quota ? ({ is: "quota", message } as const) : ({ is: "volume", message: words } as const);
    if (error instanceof WorkspaceError && sessionId !== undefined) {
      // Other sessions are not affected; this one is tried again at its item's next offer.
      this.#options.onNoVolume(sessionId);
      this.#context.holds.creations.sayForAWhile(problem);
    } else {
      this.#context.holds.creations.say(problem, quota ? undefined : sessionId);
      this.#context.holds.creations.pause();
    }
    logger.warn({ sessionId, error: errorText(error) }, "the volume of a session Pod is not available");
    this.#options.onChange();
  }

  /** Never throws. */
  async #createPod(podName: string, own?: OwnVolume): Promise<void> {
    const { metrics, labels, logger } = this.#context;
    const template = this.#context.template();
    // Checked here, too: the spec may have changed since the reconciler allowed creation.
    if (!allowsAll(this.#context.podPolicy, template.needs)) return;
    const sessionId = own?.sessionId ?? undefined;
    const pod = template.render(podName, own);
    this.#options.expected.add(podName, sessionId);
    let made: Pod | null = null;
    try {
      made = await this.#send(pod, template.hash, own);
      await this.#refuseChanged(made, pod);
      this.#options.turns.add(made, true);
      metrics.podsCreated.inc(labels);
      this.#context.holds.creations.created(sessionId);
      this.#quota.granted();
    } catch (error) {
      this.#options.expected.failed(podName, error);
      if (made === null && !isMaybeApplied(error)) this.#options.volumes.spare(podName);
      const quota = isQuotaExceeded(error);
      metrics.podCreateFailures.inc({ ...labels, reason: quota ? "quota" : "other" });
      const told = !quota || this.#quota.refused(this.#context.clock.monotonic(), this.#context.holds.creations.fromMs);
      if (told)
        this.#context.holds.creations.say({ is: quota ? "quota" : "refused", message: apiErrorText(error, podName) });
      this.#context.holds.creations.pause(quota ? "quota" : "other");
      logger.warn({ error: errorText(error) }, "cannot create a session Pod");
    }
    this.#options.onChange();
  }

  /**
   * Creates the Pod, with limits of the whole Pod if it may have them. A sidecar that admission injects can make the API
   * server refuse them: it derives the Pod's requests from the containers before admission, and then requires that they
   * are not less than those of the containers together.
   * @throws KubeApiError
   */
  async #send(pod: Pod, hash: string, own?: OwnVolume): Promise<Pod> {
    const { kube, points, logger } = this.#context;
    const { name: podName = "" } = pod.metadata;
    const about = { pod: podName, ...(own && { asks: { volume: own.claim, sessionId: own.sessionId } }) };
    const create = (sent: Pod) => points.run("prepare.create-pod", about, () => kube.create(PODS, sent));
    const limited = this.#unlimited === hash ? null : withPodLimits(pod);
    if (limited === null) return create(pod);
    try {
      return await create(limited);
    } catch (error) {
      if (!isRefused(error)) throw error;
      const made = await create(pod);
      this.withoutPodLimits(hash);
      logger.info({ error: errorText(error) }, "session Pods are refused with limits of the whole Pod");
      return made;
    }
  }

  /** Creates the Pods of this template without limits of the whole Pod. */
  withoutPodLimits(hash: string): void {
    this.#unlimited = hash;
  }

  /** Notes that all wanted Pods were created. */
  satisfied(): void {
    this.#quota.satisfied();
  }

  /**
   * Berth finds a Pod by its labels: one that lost them would belong to no Environment and count as in creation
   * forever. So it is deleted.
   * @throws {Error} names the labels that were changed
   */
  async #refuseChanged(made: Pod, asked: Pod): Promise<void> {
    const changed = Object.entries(asked.metadata.labels ?? {})
      .filter(([label, value]) => label.startsWith(OWN_LABELS) && made.metadata.labels?.[label] !== value)
      .map(([label]) => label);
    if (changed.length === 0) return;
    await deletePod(this.#context, { by: "removal", name: asked.metadata.name ?? "" }, () => false);
    throw new Error(
      `an admission webhook or policy changes the labels ${changed.join(", ")} of new Pods; exclude labels that begin with ${OWN_LABELS} from it`,
    );
  }
}

/** Whether the API server refused a Pod for what it says. An admission policy may choose its status. */
function isRefused(error: unknown): boolean {
  return isInvalid(error) || isBadRequest(error) || (isForbidden(error) && !isQuotaExceeded(error));
}

const OWN_LABELS = `${GROUP}/`;

/** Longer than a burst of a hundred claims takes. */
const LONGEST_HOLD_MS = 5_000;

/** With few Pods left: about as long as a Pod takes to be parked, so that a continuing rush finds some. */
const SHORT_HOLD_MS = 2_000;

/** A burst of up to this many claims ends before their Pods are replaced. A longer rush needs the replacements. */
const BURST = 75;

/**
 * The number of free Pods that counts as few: half of those wanted, or what a burst leaves of them if half exceeds the
 * claims allowed at a time.
 */
const few = (wanted: number) =>
  wanted / 2 <= FEWEST_UNDER_WAY ? wanted / 2 : Math.max(FEWEST_UNDER_WAY, wanted - BURST);

/** The longest time that creations yield to claims, in milliseconds, with this many of the wanted Pods parked. */
export function longestHoldMs(parked: number, wanted: number): number {
  return parked >= few(wanted) ? LONGEST_HOLD_MS : SHORT_HOLD_MS;
}

/** A quota that refuses for this long is too small, even if it admits a Pod occasionally. */
const LONG_MS = 15_000;

/**
 * Decides whether to report a quota's refusal. A quota counts a Pod's end slightly late. So if it has room for exactly
 * `maxConcurrent` Pods, it refuses the successor of every session once and admits it a moment later. A refusal repeated
 * after the pause is real.
 */
export class QuotaDoubt {
  #doubted = false;
  #believed = false;
  /** The first refusal since all wanted Pods were last created. */
  #sinceMs: number | null = null;

  /**
   * Notes a refused creation and returns whether to report it.
   * @param pausedUntilMs no new try was due before this time: earlier refusals belong to the same batch and confirm
   * nothing
   */
  refused(nowMs: number, pausedUntilMs: number): boolean {
    this.#sinceMs ??= nowMs;
    if (this.#doubted && nowMs >= pausedUntilMs) this.#believed = true;
    if (nowMs - this.#sinceMs >= LONG_MS) this.#believed = true;
    this.#doubted = true;
    return this.#believed;
  }

  /** Notes that a Pod was created: there is room. */
  granted(): void {
    this.#doubted = false;
    this.#believed = false;
  }

  /** Notes that all wanted Pods were created. */
  satisfied(): void {
    this.#sinceMs = null;
  }
}
