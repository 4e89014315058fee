import type { Command } from "commander";
import { keepAlive } from "../core/clock.ts";
import { type Settings, settingsFrom } from "../settings/config.ts";
import { addFlags, FLAGS } from "../settings/flags.ts";
import {
  addKubeconfig,
  addOutput,
  type Invocation,
  jsonText,
  REPORT_FORMATS,
  type ReportFormat,
} from "./invocation.ts";

const EXIT_UNKNOWN = 1;

interface Options {
  readonly namespace?: string;
  readonly checkKey?: boolean;
  readonly output: ReportFormat;
}

/** `berth explain`: shows what happened to a session. */
export function addExplain(program: Command, invocation: Invocation): void {
  const command = program
    .command("explain")
    .usage("<session|work item|pod> [-n <namespace>] [--check-key] [flags]")
    .description("Show what happened to a session: a timeline from its Pod, Events, claim and work item.")
    .argument("<id>", "Id of a session or of a work item, or the name of a Pod.")
    .option("-n, --namespace <name>", "Namespace to search (default: all, or that of the context).")
    .option("--check-key", "Also query the Work API, with the key of the session's Environment.");
  addKubeconfig(command);
  addFlags(command, [FLAGS.allowedApiOrigins]);
  addOutput(command, REPORT_FORMATS).action((id: string) =>
    explainSession(id, command.opts<Options>(), settingsFrom(command, invocation.env), invocation),
  );
}

async function explainSession(
  asked: string,
  { namespace, checkKey, output }: Options,
  settings: Settings,
  { env, streams, exit }: Invocation,
): Promise<void> {
  const { connect } = await import("./invocation.ts");
  const { explain } = await import("../explain/story-text.ts");
  const { Progress } = await import("../observe/terminal.ts");
  const { allowedApiOrigins, proxy } = settings;
  using _alive = keepAlive();
  await using cluster = connect(settings, "explain");
  using progress = new Progress(streams);
  const story = await explain({
    kube: cluster.kube,
    asked,
    namespace,
    currentNamespace: cluster.namespace,
    work: checkKey ? { originAllowed: (baseUrl) => allowedApiOrigins.includes(baseUrl), proxy } : null,
    say: (what) => progress.say(what),
  });
  progress[Symbol.dispose]();
  if (story.verdict.standing === "unknown") exit(EXIT_UNKNOWN);
  if (output === "json") return streams.out(jsonText(story));
  const { paintFor } = await import("../observe/terminal.ts");
  const { storyText } = await import("../explain/story-text.ts");
  streams.out(storyText(story, paintFor(streams, env["NO_COLOR"])));
}
