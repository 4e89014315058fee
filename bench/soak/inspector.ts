import { setTimeout as pause } from "node:timers/promises";
import type { OperatorProcess } from "../../test/support/operator-process.ts";

/** The Node flags that enable the inspector. Node prints the inspector's address to its standard error. */
export const INSPECTED = ["--inspect=127.0.0.1:0"] as const;

/** A busy process answers within a second or two, so a longer wait is a fault. */
const ANSWER_TIMEOUT_MS = 60_000;
const LOOK_AGAIN_MS = 20;
/** The inspector holds the objects of this group for us while we count them. */
const OBJECT_GROUP = "soak";

interface Reply {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: { readonly message: string };
}

interface RemoteObject {
  readonly value?: unknown;
  readonly objectId?: string;
  readonly description?: string;
}

/**
 * Inspects a Node process from outside, through the Chrome DevTools Protocol. The process itself needs no code for it.
 */
export class Inspector implements Disposable {
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #lastId = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => this.#answered(JSON.parse(String(data)) as Reply));
    socket.addEventListener("close", () =>
      this.#failAll(new Error("the process closed the connection to its inspector")),
    );
  }

  /** @throws {Error} if the process was started without INSPECTED */
  static async connect(operator: Pick<OperatorProcess, "stray">): Promise<Inspector> {
    const url = await addressIn(operator.stray);
    const socket = new WebSocket(url);
    await new Promise<void>((resolve, reject) => {
      socket.addEventListener("open", () => resolve(), { once: true });
      socket.addEventListener("error", () => reject(new Error(`no answer at ${url}`)), { once: true });
    });
    return new Inspector(socket);
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }

  async collectGarbage(): Promise<void> {
    await this.#call("HeapProfiler.collectGarbage");
  }

  /**
   * Evaluates an expression in the process and returns its value, transferred as JSON. @throws {Error} what the
   * expression throws
   */
  async evaluate<T>(expression: string): Promise<T> {
    return (await this.#evaluate({ expression, returnByValue: true })).value as T;
  }

  /**
   * Collects garbage, then calls a function in the process with `this` set to all live objects with a prototype.
   * @param prototype an expression, such as `Map.prototype`
   * @param body the body of the function, such as `return this.length`
   */
  async ofAll<T>(prototype: string, body: string): Promise<T> {
    try {
      const { objectId } = await this.#evaluate({ expression: prototype, objectGroup: OBJECT_GROUP });
      const params = { prototypeObjectId: objectId, objectGroup: OBJECT_GROUP };
      const { objects } = (await this.#call("Runtime.queryObjects", params)) as { objects: RemoteObject };
      const call = {
        objectId: objects.objectId,
        functionDeclaration: `function () { ${body} }`,
        returnByValue: true,
      };
      const { result } = (await this.#call("Runtime.callFunctionOn", call)) as { result: RemoteObject };
      return result.value as T;
    } finally {
      await this.#call("Runtime.releaseObjectGroup", { objectGroup: OBJECT_GROUP });
    }
  }

  async #evaluate(params: Record<string, unknown>): Promise<RemoteObject> {
    const reply = (await this.#call("Runtime.evaluate", params)) as {
      result: RemoteObject;
      exceptionDetails?: { text: string };
    };
    if (reply.exceptionDetails) throw new Error(reply.result.description ?? reply.exceptionDetails.text);
    return reply.result;
  }

  #call(method: string, params: Record<string, unknown> = {}): Promise<unknown> {
    this.#lastId += 1;
    const id = this.#lastId;
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting.set(id, waiting);
    this.#socket.send(JSON.stringify({ id, method, params }));
    const timer = setTimeout(() => {
      this.#waiting.delete(id);
      waiting.reject(new Error(`no answer to ${method} within ${ANSWER_TIMEOUT_MS} ms`));
    }, ANSWER_TIMEOUT_MS);
    return waiting.promise.finally(() => clearTimeout(timer));
  }

  #answered({ id, result, error }: Reply): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) waiting?.reject(new Error(error.message));
    else waiting?.resolve(result);
  }

  #failAll(error: Error): void {
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
  }
}

/** Node writes the line before it runs anything, but the line may still be in the pipe. */
async function addressIn(lines: readonly string[]): Promise<string> {
  const endsAt = performance.now() + ANSWER_TIMEOUT_MS;
  for (;;) {
    const url = lines.map((line) => /^Debugger listening on (ws:\S+)/.exec(line)?.[1]).find((found) => found);
    if (url !== undefined) return url;
    if (performance.now() > endsAt) throw new Error(`no inspector: ${lines.join("\n")}`);
    await pause(LOOK_AGAIN_MS);
  }
}
