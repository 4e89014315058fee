import type { Permissions } from "../api/runtime.ts";
import type { Gate } from "../claims/ports.ts";
import type { Held } from "../core/idle-release.ts";
import type { Notifier } from "../core/notifier.ts";
import type { Breaker } from "../pods/breaker.ts";
import type { ParkedPool } from "../pool/pool.ts";
import { type ClaimTable, hasPodFor } from "../protocol/claim-table.ts";
import type { SessionContext } from "../protocol/context.ts";
import type { ApiHealth } from "../queue/api-health.ts";
import type { PollPace } from "../queue/poll-pace.ts";
import type { QueueWatch } from "../queue/queue-watch.ts";
import type { Sharer } from "../queue/shared-sessions.ts";

/** The finalizer of an Environment, which keeps it from being deleted while claims are left. */
export interface Finalizer extends Held {
  /** Makes sure that the finalizer is there. Returns false when nothing may be claimed: the Environment is being deleted. */
  hold(): Promise<boolean>;
}

interface Options {
  readonly context: SessionContext;
  readonly claims: ClaimTable;
  readonly finalizer: Finalizer;
  readonly sharer: Sharer;
  readonly health: ApiHealth;
  readonly pool: ParkedPool;
  readonly queue: QueueWatch;
  readonly pace: PollPace;
  readonly breaker: Breaker;
  readonly offers: Breaker;
  readonly changed: Notifier;
}

/** Whether an Environment's claims may be made now: what the reconciler allows, what the queue holds, which Pods are free. */
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

  /** The Environment is being deleted: nothing is claimed any more. */
  drain(): void {
    this.#draining = true;
  }

  /** Requests to the Work API make sense. */
  get mayAsk(): boolean {
    return this.#permissions.mayAsk && !this.#options.health.keyRejected;
  }

  /** The reconciler allows new claims. */
  get isAllowed(): boolean {
    return this.#permissions.mayClaim && !this.#draining;
  }

  // A poll under way when someone pauses the Environment, or changes its spec, may still bring an item.
  get isClosing(): boolean {
    const { mayAsk, mayClaim } = this.#permissions;
    return this.#draining || !mayAsk || !mayClaim || this.#context.environment().spec.paused;
  }

  /** How the spec says that items bring their credential. */
  get credential(): string {
    return this.#context.environment().spec.sessions?.credential ?? "";
  }

  async mayClaim(signal: AbortSignal): Promise<void> {
    const { clock, failing, timing } = this.#context;
    const { pool, queue, pace, breaker, offers, changed } = this.#options;
    const ready = () => {
      if (!offers.admits(this.credential, clock.monotonic())) return false;
      const finds = pool.hasClaimable || (queue.depth > 0 && pool.wantsOffers);
      return this.mayAsk && this.isAllowed && !failing.holdsClaims && finds;
    };
    // A probe claim becomes possible by the clock alone.
    if (!ready() && pace.pollsEnd()) queue.look();
    while (!signal.aborted && !ready()) {
      const open = [breaker, offers].filter(({ isOpen }) => isOpen);
      // Failing steps may stop holding claims back by the clock alone.
      const heldMs = failing.holdsClaims ? clock.monotonic() + timing.settleLookMs : 0;
      const dueMs = [...open.map(({ nextProbeAtMs }) => nextProbeAtMs), heldMs];
      const waits = dueMs.map((atMs) => atMs - clock.monotonic()).filter((ms) => ms > 0);
      if (waits.length === 0) await changed.wait(signal);
      else await changed.waitAtMost(clock, Math.min(...waits), signal);
    }
  }

  holdEnvironment(): Promise<boolean> {
    return this.#options.finalizer.hold();
  }

  runs(sessionId: string, api: string): boolean {
    const { sharer, claims } = this.#options;
    const runsHere = hasPodFor(this.#context, claims, sessionId);
    return runsHere || this.#context.sharedSessions.mayRunElsewhere(sharer, sessionId, api);
  }
}
