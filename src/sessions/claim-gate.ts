import type { Permissions } from "../api/runtime.ts";
import type { Gate } from "../claims/ports.ts";
import type { Held } from "../core/idle-release.ts";
import type { Notifier } from "../core/notifier.ts";
import type { ParkedPool } from "../pool/pool.ts";
import type { ClaimTable } from "../protocol/claim-table.ts";
import type { SessionContext } from "../protocol/context.ts";
import type { PollPace } from "../queue/poll-pace.ts";
import type { QueueWatch } from "../queue/queue-watch.ts";
import { hasPodFor } from "../sleep/session-pods.ts";
import type { SleepingPods } from "../sleep/sleeping-pods.ts";

/** The finalizer of an Environment. It delays the deletion of the Environment until no claim is left. */
export interface Finalizer extends Held {
  /** Adds the finalizer if it is missing. Returns false if the Environment is being deleted: claim nothing then. */
  hold(): Promise<boolean>;
}

interface Options {
  readonly context: SessionContext;
  readonly finalizer: Finalizer;
  readonly claims: ClaimTable;
  readonly pool: ParkedPool;
  readonly sleeping: Pick<SleepingPods, "hasReady">;
  readonly queue: QueueWatch;
  readonly pace: PollPace;
  readonly changed: Notifier;
}

/** Decides whether an Environment may claim now, from the reconciler's permissions, the queue and the free Pods. */
export class ClaimGate implements Gate {
  readonly #options: Options;
  readonly #context: SessionContext;
  #permissions: Permissions = { mayAsk: false, mayPrepare: false, mayClaim: false };
  #draining = false;

  constructor(options: Options) {
    this.#options = options;
    this.#context = options.context;
  }

  update(permissions: Permissions): void {
    this.#permissions = permissions;
  }

  /** The Environment is being deleted: claim nothing from now on. */
  drain(): void {
    this.#draining = true;
  }

  /** The reconciler permits requests to the Work API, and the key was not rejected. */
  get mayAsk(): boolean {
    return this.#permissions.mayAsk && !this.#context.holds.health.keyRejected;
  }

  /** May read the queue. An Environment that isn't served sends no more requests than the check of its key needs. */
  get mayRead(): boolean {
    return this.mayAsk && (this.isServed || this.#context.holds.health.key.reason !== "KeyAccepted");
  }

  /** Whether the Environment serves its queue, and no other one of the same queue does. */
  get isServed(): boolean {
    return this.#context.precedence().isServed;
  }

  /** The reconciler permits new claims, no drain has begun, and no other Environment claims from the queue. */
  get isAllowed(): boolean {
    return this.#permissions.mayClaim && !this.#draining && this.#context.precedence().mayClaim;
  }

  // Reads the current spec: a poll in flight may still return an item after the Environment was paused or changed.
  get isClosing(): boolean {
    return !this.#permissions.mayAsk || !this.isAllowed || this.#context.environment().spec.paused;
  }

  async mayClaim(signal: AbortSignal): Promise<void> {
    const { clock, holds } = this.#context;
    const { pool, sleeping, queue, pace, changed } = this.#options;
    const ready = () => {
      if (clock.monotonic() < holds.claimsFromMs) return false;
      const mayWake = () => !pool.isFull && sleeping.hasReady;
      const finds = pool.hasClaimable || (queue.depth > 0 && pool.wantsOffers) || mayWake();
      return this.mayAsk && this.isAllowed && finds;
    };
    if (!ready() && pace.pollsEnd()) queue.look();
    while (!signal.aborted && !ready()) {
      const waitMs = holds.againAtMs - clock.monotonic();
      if (waitMs === Number.POSITIVE_INFINITY) await changed.wait(signal);
      else await changed.waitAtMost(clock, waitMs, signal);
    }
  }

  holdEnvironment(): Promise<boolean> {
    return this.#options.finalizer.hold();
  }

  runs(sessionId: string): boolean {
    return hasPodFor(this.#context, this.#options.claims, sessionId);
  }
}
