import {
  createServer,
  Agent as HttpAgent,
  type IncomingMessage,
  request,
  type Server,
  type ServerResponse,
} from "node:http";
import { Agent as HttpsAgent, request as secureRequest } from "node:https";
import type { AddressInfo } from "node:net";
import type { Auth } from "../../../src/kube/credentials.ts";

/** A request as it arrived at the proxy. */
export interface Passing {
  /** Identifies the sender: the user agent towards the API server, the worker id towards a Work API. */
  readonly sender: string;
  /**
   * Such as `create secrets`, `patch pods/status`, `watch pods` or `update leases`; for the Work API `poll` or `ack`.
   */
  readonly call: string;
  readonly path: string;
  /** Whether it changes something on the server. A poll does: it reserves an item. */
  readonly isWrite: boolean;
  /** performance.now() at its arrival. */
  readonly atMs: number;
}

/**
 * What the proxy does to a request: it holds the request until a promise resolves, or resets its connection. `before`
 * applies before the request is forwarded, so it has no effect yet; `after` applies once the reply has arrived, so it
 * had full effect. A held request is forwarded even if its sender is gone.
 */
export interface Treatment {
  readonly before?: Promise<unknown> | "reset";
  readonly after?: Promise<unknown> | "reset";
}

/** Called for every request on arrival; the first rule that returns a treatment decides. */
export type Rule = (passing: Passing) => Treatment | undefined;

/** The target server, and the proxy's credentials for it. */
export interface Target {
  readonly url: string;
  readonly ca?: string | undefined;
  readonly auth?: Pick<Auth, "cert" | "key">;
  /** Returns a request's sender and call. */
  readonly read: (request: IncomingMessage) => Pick<Passing, "sender" | "call" | "path" | "isWrite">;
}

/** A reply in progress. */
interface Open {
  readonly passing: Passing;
  readonly reply: IncomingMessage;
  readonly to: ServerResponse;
}

/**
 * An HTTP proxy in front of an API server or a Work API. It records every request of every replica, and can hold or
 * drop a request or its reply. It simulates the network between one process and one server for selected requests.
 */
export class RequestProxy implements AsyncDisposable {
  /** All requests, in the order of arrival. */
  readonly passed: Passing[] = [];
  readonly #target: Target;
  readonly #server: Server;
  readonly #agent: HttpAgent | HttpsAgent;
  readonly #rules = new Set<Rule>();
  readonly #open = new Set<Open>();

  private constructor(target: Target) {
    this.#target = target;
    const { ca, auth } = target;
    this.#agent = target.url.startsWith("https:")
      ? new HttpsAgent({ keepAlive: true, ...(ca && { ca }), ...(auth?.cert && { cert: auth.cert, key: auth.key }) })
      : new HttpAgent({ keepAlive: true });
    this.#server = createServer((from, to) => {
      from.on("error", () => {});
      to.on("error", () => {});
      this.#pass(from, to).catch(() => to.destroy());
    });
  }

  static async start(target: Target): Promise<RequestProxy> {
    const proxy = new RequestProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Adds a rule, and returns a function that removes it. Requests that the rule already holds stay held. */
  rule(rule: Rule): () => void {
    this.#rules.add(rule);
    return () => void this.#rules.delete(rule);
  }

  /**
   * Stops forwarding the replies in progress, such as those of watches. Returns functions that resume or reset them.
   */
  freeze(which: (passing: Passing) => boolean): { resume: () => void; reset: () => void } {
    const frozen = [...this.#open].filter(({ passing }) => which(passing));
    for (const { reply, to } of frozen) reply.unpipe(to).pause();
    return {
      resume: () => {
        for (const { reply, to } of frozen) reply.pipe(to);
      },
      reset: () => {
        for (const { to } of frozen) to.destroy();
      },
    };
  }

  /** Requests whose sender contains this text. */
  of(sender: string): Passing[] {
    return this.passed.filter((passing) => passing.sender.includes(sender));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    this.#agent.destroy();
    await closed;
  }

  async #pass(from: IncomingMessage, to: ServerResponse): Promise<void> {
    const passing: Passing = { ...this.#target.read(from), atMs: performance.now() };
    this.passed.push(passing);
    const { before, after } = this.#treatmentOf(passing);
    const body: Buffer[] = [];
    for await (const chunk of from) body.push(chunk as Buffer);
    if (before === "reset") return void to.destroy();
    await before;
    const reply = await this.#send(from, Buffer.concat(body), to);
    if (after === "reset") {
      reply.resume();
      return void to.destroy();
    }
    await after;
    to.writeHead(reply.statusCode ?? 502, reply.headers);
    // A watch without events still gets its response headers.
    to.flushHeaders();
    const open: Open = { passing, reply, to };
    this.#open.add(open);
    to.on("close", () => this.#open.delete(open));
    reply.on("error", () => to.destroy());
    reply.pipe(to);
  }

  #treatmentOf(passing: Passing): Treatment {
    for (const rule of this.#rules) {
      const treatment = rule(passing);
      if (treatment) return treatment;
    }
    return {};
  }

  #send(from: IncomingMessage, body: Buffer, to: ServerResponse): Promise<IncomingMessage> {
    const { url } = this.#target;
    const { method = "GET", url: path = "/", headers } = from;
    const send = url.startsWith("https:") ? secureRequest : request;
    const { host: _, ...passedOn } = headers;
    return new Promise((resolve, reject) => {
      const onward = send(new URL(path, url), { method, headers: passedOn, agent: this.#agent }, resolve);
      onward.on("error", reject);
      // A read whose client is gone has no purpose; a write still takes effect.
      if (method === "GET") to.on("close", () => onward.destroy());
      onward.end(body);
    });
  }
}

const VERBS: Readonly<Record<string, string>> = { POST: "create", PUT: "update", PATCH: "patch", DELETE: "delete" };

/** Parses a request to the API server, such as `create pods`, `patch environments/status` or `watch pods`. */
export function readKubeRequest({ method = "GET", url = "/", headers }: IncomingMessage) {
  const { pathname, searchParams } = new URL(url, "http://server");
  const [, resource = pathname, name, subresource] =
    /^\/(?:api|apis\/[^/]+)\/v[^/]+\/(?:namespaces\/[^/]+\/)?([^/]+)(?:\/([^/]+))?(?:\/([^/]+))?$/.exec(pathname) ?? [];
  const read = searchParams.get("watch") ? "watch" : name === undefined ? "list" : "get";
  const verb = VERBS[method] ?? read;
  return {
    sender: headers["user-agent"] ?? "",
    call: `${verb} ${resource}${subresource ? `/${subresource}` : ""}`,
    path: pathname,
    isWrite: method !== "GET",
  };
}

/** Parses a request to the Work API: the call is the last part of the path; for a list it is `work`. */
export function readWorkRequest({ method = "GET", url = "/", headers }: IncomingMessage) {
  const { pathname } = new URL(url, "http://server");
  const call = pathname.split("/").at(-1) ?? "";
  const sender = String(headers["anthropic-worker-id"] ?? "");
  return { sender, call, path: pathname, isWrite: method !== "GET" || call === "poll" };
}
