import { GROUP } from "../api/names.ts";
import { allowsAll } from "../api/pod-policy.ts";
import { errorText } from "../core/errors.ts";
import { apiErrorText, isForbidden, isQuotaExceeded } from "../kube/errors.ts";
import { PODS, type Pod } from "../kube/resource.ts";
import { deletePod } from "../pods/delete.ts";
import { newPodName } from "../pods/pod-render.ts";
import type { OwnVolume } from "../pods/workspace-pods.ts";
import { FEWEST_UNDER_WAY } from "../protocol/claim-priority.ts";
import type { SessionContext } from "../protocol/context.ts";
import type { CreationBackoff } from "./creation-backoff.ts";
import type { Expectations } from "./expectations.ts";
import { NO_PERMISSION, WorkspaceError } from "./workspaces.ts";

/** Creates session Pods, each of the template as it is now. What keeps one from being created is for `backoff`. */
export class PodCreation {
  readonly #context: SessionContext;
  readonly #expected: Expectations;
  readonly #backoff: CreationBackoff;
  readonly #takeVolume: (sessionId: string) => Promise<OwnVolume>;
  readonly #onNoVolume: (sessionId: string) => void;
  readonly #onChange: () => void;
  readonly #quota = new QuotaDoubt();

  constructor(options: {
    context: SessionContext;
    expected: Expectations;
    backoff: CreationBackoff;
    /** `workspace: PerSession`: the session's volume, which its Pod is to mount. */
    takeVolume: (sessionId: string) => Promise<OwnVolume>;
    /** This session's volume cannot be had for now. */
    onNoVolume: (sessionId: string) => void;
    onChange: () => void;
  }) {
    this.#context = options.context;
    this.#expected = options.expected;
    this.#backoff = options.backoff;
    this.#takeVolume = options.takeVolume;
    this.#onNoVolume = options.onNoVolume;
    this.#onChange = options.onChange;
  }

  /** A Pod for this session. The volume first: a Pod cannot be given one later. Never throws. */
  async createFor(sessionId: string): Promise<void> {
    const { metrics, labels, logger } = this.#context;
    try {
      await this.create(await this.#takeVolume(sessionId));
    } catch (error) {
      const quota = isQuotaExceeded(error);
      metrics.podCreateFailures.inc({ ...labels, reason: quota ? "quota" : "volume" });
      const message = apiErrorText(error, sessionId);
      const words = isForbidden(error) ? `${message}; ${NO_PERMISSION}` : message;
      const problem = quota ? ({ is: "quota", message } as const) : ({ is: "volume", message: words } as const);
      if (error instanceof WorkspaceError) {
        // It holds up no other session, and is tried again when its item is offered again.
        this.#onNoVolume(sessionId);
        this.#backoff.sayForAWhile(problem);
      } else {
        this.#backoff.say(problem, quota ? undefined : sessionId);
        this.#backoff.pause();
      }
      logger.warn({ sessionId, error: errorText(error) }, "a session's volume could not be had");
      this.#onChange();
    }
  }

  /** A Pod for any session, or for that of the volume. */
  async create(own?: OwnVolume): Promise<void> {
    const { kube, points, name, metrics, labels, logger } = this.#context;
    const podName = newPodName(name);
    const template = this.#context.template();
    // Here too: a spec may have changed since the reconciler gave leave.
    if (!allowsAll(this.#context.podPolicy, template.needs)) return;
    const pod = template.render(podName, own);
    this.#expected.add(podName, own?.sessionId);
    try {
      const made = await points.run("prepare.create-pod", { pod: podName }, () => kube.create(PODS, pod));
      await this.#refuseChanged(made, pod);
      metrics.podsCreated.inc(labels);
      this.#backoff.created(own?.sessionId);
      this.#quota.granted();
    } catch (error) {
      this.#expected.failed(podName, error);
      const quota = isQuotaExceeded(error);
      metrics.podCreateFailures.inc({ ...labels, reason: quota ? "quota" : "other" });
      const told = !quota || this.#quota.refused(this.#context.clock.monotonic(), this.#backoff.fromMs);
      if (told) this.#backoff.say({ is: quota ? "quota" : "refused", message: apiErrorText(error, podName) });
      this.#backoff.pause(quota ? "quota" : "other");
      logger.warn({ error: errorText(error) }, "a session Pod could not be created");
    }
    this.#onChange();
  }

  /** All Pods that are wanted were created. */
  satisfied(): void {
    this.#quota.satisfied();
  }

  /**
   * A Pod is found by its labels: one that lost them on its way would be nobody's, and count as being made for good. It goes.
   * @throws {Error} names the labels that something else than Berth changed
   */
  async #refuseChanged(made: Pod, asked: Pod): Promise<void> {
    const changed = Object.entries(asked.metadata.labels ?? {})
      .filter(([label, value]) => label.startsWith(OWN_LABELS) && made.metadata.labels?.[label] !== value)
      .map(([label]) => label);
    if (changed.length === 0) return;
    await deletePod(this.#context, { by: "removal", name: asked.metadata.name ?? "" }, () => false);
    throw new Error(
      `an admission webhook or policy of the cluster changes the labels ${changed.join(", ")} of Pods as they are created: have it leave labels that begin with ${OWN_LABELS} alone`,
    );
  }
}

const OWN_LABELS = `${GROUP}/`;

/** Longer than a burst of a hundred claims takes. */
const LONGEST_HOLD_MS = 5_000;

/** With few of them left: about as long as a Pod takes to be parked, so that a rush that goes on finds some. */
const SHORT_HOLD_MS = 2_000;

/** A burst of so many claims is through before their Pods are replaced. What takes more is no burst, and needs them. */
const BURST = 75;

/** So many free Pods are few: half of those wanted, or, where that is more than can be claimed at a time, what a burst leaves. */
const few = (wanted: number) =>
  wanted / 2 <= FEWEST_UNDER_WAY ? wanted / 2 : Math.max(FEWEST_UNDER_WAY, wanted - BURST);

/** The longest that creations leave the way to claims, in milliseconds, with so many of the wanted Pods parked. */
export function longestHoldMs(parked: number, wanted: number): number {
  return parked >= few(wanted) ? LONGEST_HOLD_MS : SHORT_HOLD_MS;
}

/** A quota that keeps refusing for so long is too small, even if it lets a Pod through now and then. */
const LONG_MS = 15_000;

/**
 * Whether a quota's refusal is to be told. A quota hears of a Pod's end a moment later than everybody else, so where it
 * has just the room that `maxConcurrent` takes, it refuses the successor of every session once, and takes it a little
 * later. What it refuses again after the pause is refused in earnest.
 */
export class QuotaDoubt {
  #doubted = false;
  #believed = false;
  /** The first refusal since all Pods that were wanted had been created. */
  #sinceMs: number | null = null;

  /** A creation was refused. `pausedUntilMs`: before, no other was to be tried; those of the same batch are no second word. */
  refused(nowMs: number, pausedUntilMs: number): boolean {
    this.#sinceMs ??= nowMs;
    if (this.#doubted && nowMs >= pausedUntilMs) this.#believed = true;
    if (nowMs - this.#sinceMs >= LONG_MS) this.#believed = true;
    this.#doubted = true;
    return this.#believed;
  }

  /** A Pod was created: there is room. */
  granted(): void {
    this.#doubted = false;
    this.#believed = false;
  }

  /** All Pods that are wanted were created. */
  satisfied(): void {
    this.#sinceMs = null;
  }
}
