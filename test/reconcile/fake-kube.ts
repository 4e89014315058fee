/** A fake KubeClient and the errors that it can answer with. */
import { type Clock, realClock } from "../../src/core/clock.ts";
import type { CallOptions, KubeClient, ObjectRef, PatchQuery } from "../../src/kube/client.ts";
import { KubeApiError, type StatusCause } from "../../src/kube/errors.ts";
import type { KubeObject, Resource } from "../../src/kube/resource.ts";

/** A call that the fake received. */
export interface KubeCall {
  readonly verb: "get" | "create" | "patch" | "listAll" | "delete";
  readonly plural: string;
  readonly ref: ObjectRef;
  readonly body: unknown;
  readonly query: unknown;
  /** The request's own timeout, if it has one. */
  readonly timeoutMs?: number;
}

export type Answer = (call: KubeCall) => unknown;

/**
 * A fake KubeClient. It returns the test's answers, records every call, and fails the test for an unexpected call
 * instead of answering with nothing.
 */
export class FakeKube {
  readonly calls: KubeCall[] = [];
  readonly #clock: Pick<Clock, "now">;
  #answer: Answer | null;

  /** @param clock the server's clock; by default, the machine's */
  constructor(answer: Answer | null = null, clock: Pick<Clock, "now"> = realClock) {
    this.#answer = answer;
    this.#clock = clock;
  }

  /** Sets the answers from now on. A returned Error is thrown. */
  answer(answer: Answer): void {
    this.#answer = answer;
  }

  get client(): KubeClient {
    const fake = {
      now: () => this.#clock.now(),
      get: (resource: Resource, ref: ObjectRef, o: CallOptions = {}) =>
        this.#call({ verb: "get", plural: resource.plural, ref, ...boundOf(o) }),
      create: (resource: Resource, object: KubeObject, query: unknown, o: CallOptions = {}) => {
        const { namespace, name = "" } = object.metadata;
        const ref = { namespace, name };
        return this.#call({ verb: "create", plural: resource.plural, ref, body: object, query, ...boundOf(o) });
      },
      listAll: (resource: Resource, query: { namespace: string }) =>
        this.#call({ verb: "listAll", plural: resource.plural, ref: { namespace: query.namespace, name: "" }, query }),
      patch: (resource: Resource, ref: ObjectRef, body: unknown, query: PatchQuery) =>
        this.#call({ verb: "patch", plural: resource.plural, ref, body, query }),
      delete: (resource: Resource, ref: ObjectRef, query: unknown) =>
        this.#call({ verb: "delete", plural: resource.plural, ref, query }),
    };
    const strict = new Proxy(fake, {
      get(target, name) {
        if (Reflect.has(target, name)) return Reflect.get(target, name) as unknown;
        throw new Error(`the fake KubeClient has no ${String(name)}`);
      },
    });
    return strict as unknown as KubeClient;
  }

  async #call(call: Pick<KubeCall, "verb" | "plural" | "ref"> & Partial<KubeCall>): Promise<unknown> {
    const whole = { body: undefined, query: undefined, ...call };
    this.calls.push(whole);
    const answer = this.#answer?.(whole);
    if (answer === undefined) throw new Error(`not foreseen: ${call.verb} ${call.plural} ${call.ref.name}`);
    if (answer instanceof Error) throw answer;
    return answer;
  }
}

function boundOf({ timeoutMs }: CallOptions): Pick<KubeCall, "timeoutMs"> {
  return timeoutMs === undefined ? {} : { timeoutMs };
}

/** The API server's error for a missing object. */
export function notFound(plural: string, name: string): KubeApiError {
  const message = `get ${plural} agents/${name}: ${plural} "${name}" not found`;
  return new KubeApiError(message, { status: 404, reason: "NotFound", details: { name, kind: plural } });
}

/** A refusal with the API server's text. */
export function refusal(
  status: number,
  reason: string,
  message: string,
  causes?: readonly StatusCause[],
): KubeApiError {
  return new KubeApiError(message, { status, reason, details: causes && { causes } });
}

/** An error without an answer. */
export function noAnswer(about: string): KubeApiError {
  const message = `${about}: no answer from the API server: connect ECONNREFUSED 127.0.0.1:6443`;
  return new KubeApiError(message, { status: 0 });
}
