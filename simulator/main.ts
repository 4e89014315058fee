import { Command, InvalidArgumentError, Option } from "commander";
import { z } from "zod";
import { bashScript } from "./script.ts";
import { type Simulator, type SimulatorOptions, startSimulator } from "./simulator.ts";
import { limitsSchema, switchesSchema } from "./switches.ts";
import { violationText } from "./violations.ts";
import { newWebhookSecret } from "./webhooks.ts";

const EXIT_VIOLATIONS = 1;
const EXIT_USAGE = 2;
const EXIT_FAILED = 70;

interface Flags {
  port: number;
  host: string;
  publicUrl?: string;
  adminToken?: string;
  environmentId?: string;
  environmentKey?: string;
  apiKey?: string;
  scale: number;
  seed: number;
  ttl?: number;
  switch: Record<string, unknown>;
  items: number;
  rate?: number;
  command: string[];
  for?: number;
  webhookUrl?: string;
  webhookSecret?: string;
  quiet: boolean;
}

const numberAtLeast = (least: number, whole: boolean) => (text: string) => {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value) || value < least || (whole && !Number.isInteger(value))) {
    throw new InvalidArgumentError(`Use a ${whole ? "whole " : ""}number, ${least} or more.`);
  }
  return value;
};

function urlOf(text: string): string {
  if (!/^https?:/.test(text) || !URL.canParse(text)) throw new InvalidArgumentError("Use an http or https URL.");
  return text.replace(/\/+$/, "");
}

/** Parses `name=value`. The value may be JSON. */
function addSwitch(text: string, before: Record<string, unknown>): Record<string, unknown> {
  const at = text.indexOf("=");
  if (at < 1) throw new InvalidArgumentError("Use name=value.");
  const value = text.slice(at + 1);
  let parsed: unknown = value;
  try {
    parsed = JSON.parse(value);
  } catch {
    // The value is a plain word.
  }
  const all = { ...before, [text.slice(0, at)]: parsed };
  const result = switchesSchema.safeParse(all);
  if (!result.success) throw new InvalidArgumentError(z.prettifyError(result.error));
  return all;
}

function program(): Command {
  return new Command("simulator")
    .description("Serve the Work API, and the part of the sessions API that workers need, to try out workers.")
    .option("--port <number>", "port; 0 uses any free port", numberAtLeast(0, true), 0)
    .option("--host <address>", "address to listen on; beyond loopback, set --admin-token too", "127.0.0.1")
    .option("--public-url <url>", "URL for workers, if it differs from that address", urlOf)
    .addOption(
      new Option("--admin-token <token>", "token that requests under /admin/ must have").env("SIMULATOR_ADMIN_TOKEN"),
    )
    .option("--environment-id <id>", "id of the first environment; random by default")
    .option("--environment-key <key>", "key of the first environment; random by default")
    .option("--api-key <key>", "the organization's API key; random by default")
    .option("--scale <factor>", "speed of the clock: 10 is ten times real time", numberAtLeast(0.001, false), 1)
    .option("--ttl <seconds>", "TTL of leases; 90 by default", numberAtLeast(1, false))
    .option("--switch <name=value>", "behavior that the contract leaves open; repeatable", addSwitch, {})
    .option("--items <number>", "number of sessions to queue at the start", numberAtLeast(0, true), 0)
    .option(
      "--rate <number>",
      "average number of sessions that arrive per second, at random times",
      numberAtLeast(0.000_001, false),
    )
    .option("--seed <number>", "seed of arrivals and faults", numberAtLeast(0, true), 1)
    .option("--command <text...>", "bash commands that the agents run, one per turn", ["echo hello"])
    .option(
      "--for <seconds>",
      "end after this time; the exit code is 1 if a client broke the protocol",
      numberAtLeast(0, false),
    )
    .option("--webhook-url <url>", "URL for signed webhooks about the sessions", urlOf)
    .addOption(
      new Option("--webhook-secret <secret>", "secret that signs the webhooks (whsec_...); random by default").env(
        "SIMULATOR_WEBHOOK_SECRET",
      ),
    )
    .option("--quiet", "print only violations", false)
    .showHelpAfterError("(--help shows all flags)")
    .allowExcessArguments(false)
    .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : EXIT_USAGE));
}

function optionsOf(flags: Flags): SimulatorOptions {
  const { port, host, publicUrl, adminToken, apiKey, scale, seed, ttl } = flags;
  const limits =
    ttl === undefined ? {} : { ttlSeconds: ttl, minTtlSeconds: Math.min(ttl, limitsSchema.parse({}).minTtlSeconds) };
  return {
    ...{ port, host, scale, seed, switches: flags.switch, limits },
    ...(publicUrl !== undefined && { publicUrl }),
    ...(adminToken !== undefined && { adminToken }),
    ...(apiKey !== undefined && { apiKey }),
  };
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function announce(simulator: Simulator, environment: { id: string; key: string }): void {
  print(`ANTHROPIC_BASE_URL=${simulator.url}`);
  print(`ANTHROPIC_ENVIRONMENT_ID=${environment.id}`);
  print(`ANTHROPIC_ENVIRONMENT_KEY=${environment.key}`);
  print(`ANTHROPIC_API_KEY=${simulator.apiKey}`);
}

function follow(simulator: Simulator, quiet: boolean): void {
  const time = () => new Date(simulator.clock.now()).toISOString();
  simulator.on("violation", (violation) => {
    print(`${time()} ${violation.excuse ? "excused" : "VIOLATION"} ${violationText(violation)}`);
  });
  if (quiet) return;
  simulator.on("item", (item, event) => {
    if (event !== "heartbeat") print(`${time()} ${item.id} ${event} (${item.state})`);
  });
  simulator.on("delivery", ({ type, about, status }) => print(`${time()} webhook ${type} ${about} (${status})`));
  simulator.on("session", (sessionId, event) => print(`${time()} ${sessionId} ${event.type}`));
}

/** Runs the simulator until it gets a signal or for as long as `--for` says, then exits. */
export async function main(argv: readonly string[]): Promise<void> {
  const flags = program()
    .parse([...argv], { from: "user" })
    .opts<Flags>();
  const simulator = await startSimulator(optionsOf(flags));
  const environment = simulator.createEnvironment({
    ...(flags.environmentId !== undefined && { id: flags.environmentId }),
    ...(flags.environmentKey !== undefined && { key: flags.environmentKey }),
  });
  announce(simulator, environment);
  if (flags.webhookUrl !== undefined) {
    const secret = flags.webhookSecret ?? newWebhookSecret();
    simulator.sendWebhooks({ url: flags.webhookUrl, secret });
    if (flags.webhookSecret === undefined) print(`ANTHROPIC_WEBHOOK_SIGNING_KEY=${secret}`);
  }
  follow(simulator, flags.quiet);
  const item = { script: bashScript(...flags.command) };
  for (let i = 0; i < flags.items; i += 1) simulator.enqueue(environment.id, item);
  if (flags.rate !== undefined) {
    simulator.arrivals(environment.id, { kind: "poisson", ratePerSecond: flags.rate, seed: flags.seed, item });
  }
  const end = async () => {
    print(JSON.stringify(simulator.report(), undefined, 2));
    const failed = simulator.violations.length > 0;
    await simulator.close();
    process.exit(failed && flags.for !== undefined ? EXIT_VIOLATIONS : 0);
  };
  process.once("SIGINT", () => void end());
  process.once("SIGTERM", () => void end());
  if (flags.for !== undefined) setTimeout(() => void end(), flags.for * 1000);
}

if (import.meta.main) {
  main(process.argv.slice(2)).catch((error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(EXIT_FAILED);
  });
}
