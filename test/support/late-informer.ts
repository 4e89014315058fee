import { setTimeout as pause } from "node:timers/promises";
import type { KubeObject } from "../../src/kube/resource.ts";
import { type Change, type ChangeHandler, Informer, type InformerOptions } from "../../src/watch/informer.ts";

/**
 * The maximum delay, in milliseconds, before tests see a change: 0 unless `BERTH_TEST_WATCH_LAG_MS` is set. Two watches
 * are not always equally fast, especially on a busy machine. A test that fails with a lag checks once what it must wait
 * for.
 */
const LAG_MS = Number(process.env.BERTH_TEST_WATCH_LAG_MS ?? 0);

/** An informer for tests. Each has its own delay, so that one lags behind another. */
export class LateInformer<T extends KubeObject> extends Informer<T> {
  readonly #lagMs: number;
  readonly #shown = new Map<string, T>();
  readonly #handlers = new Set<ChangeHandler<T>>();

  constructor(options: InformerOptions<T>, lagMs = LAG_MS * Math.random()) {
    super(options);
    this.#lagMs = lagMs;
    if (lagMs > 0) super.subscribe((change) => void setTimeout(() => this.#show(change), lagMs));
  }

  override get(namespace: string | undefined, name: string): T | undefined {
    return this.#lagMs > 0 ? this.#shown.get(keyOf({ namespace, name })) : super.get(namespace, name);
  }

  override list(): T[] {
    return this.#lagMs > 0 ? [...this.#shown.values()] : super.list();
  }

  /** Also waits until the changes that arrived by this call are visible. */
  override async relist(): Promise<void> {
    await super.relist();
    if (this.#lagMs > 0) await pause(this.#lagMs + 1);
  }

  override subscribe(fn: ChangeHandler<T>): () => void {
    if (this.#lagMs <= 0) return super.subscribe(fn);
    for (const object of this.#shown.values()) fn({ type: "added", object });
    this.#handlers.add(fn);
    return () => void this.#handlers.delete(fn);
  }

  #show(change: Change<T>): void {
    const key = keyOf(change.object.metadata);
    if (change.type === "deleted") this.#shown.delete(key);
    else this.#shown.set(key, change.object);
    for (const handler of this.#handlers) handler(change);
  }
}

const keyOf = ({ namespace = "", name = "" }: { namespace?: string | undefined; name?: string | undefined }) =>
  `${namespace}/${name}`;
