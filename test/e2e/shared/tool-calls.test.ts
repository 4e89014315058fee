import { describe, expect, test } from "vitest";
import { bashScript, type ScriptInput } from "../../../simulator/script.ts";
import type { EndReason } from "../../../src/api/reasons.ts";
import { IS_GVISOR, READ_ONLY } from "../support/isolation.ts";
import { podOf, serveOne, untilAnswered, untilEnded } from "../support/session-life.ts";
import type { StockWorker } from "../support/worker-template.ts";
import { type E2eOptions, startE2eWorld } from "../support/world.ts";

const WORKERS: readonly StockWorker[] = ["typescript", "python"];

/** The user of the worker images; see testbed/images. */
const WORKER_USER = 10_001;

/** More than a stock worker returns from one call: it keeps the last 100 KiB. */
const BIG_OUTPUT_LINES = 30_000;
const OUTPUT_LIMIT_BYTES = 100 * 1024;

/** Plays a script in a session, and returns the answers to its tool calls. */
async function answersOf(script: ScriptInput, options: E2eOptions = {}, reason: EndReason = "Completed") {
  await using world = await startE2eWorld(options);
  const served = await serveOne(world, { script });
  await untilEnded(world, served, reason);
  const answers = await untilAnswered(world, served.item, script.turns?.length ?? 0);
  return { answers, pod: podOf(world, served.item) };
}

const outputs = (answers: readonly (readonly [output: string | undefined, isError: boolean | undefined])[]) =>
  answers.map(([output]) => output);

describe.concurrent.each(WORKERS)("tool calls of the stock %s worker, with real bash", (worker) => {
  test("keep files, the directory and variables from one call to the next", async () => {
    const { answers } = await answersOf(
      {
        turns: [
          { tools: [{ name: "write", input: { file_path: "notes/a.txt", content: "one\ntwo\n" } }] },
          ...(bashScript("cd notes; export COLOR=blue; pwd", "echo $COLOR; wc -l <a.txt; echo three >>a.txt").turns ??
            []),
          { tools: [{ name: "read", input: { file_path: "notes/a.txt" } }] },
        ],
      },
      { worker },
    );
    expect(answers.map(([, isError]) => isError)).toEqual([false, false, false, false]);
    const [, where, rest, read] = outputs(answers);
    expect(where).toBe("/workspace/notes");
    expect(rest).toBe("blue\n2");
    expect(read).toContain("three");
  });

  test("distinguish failures from successes, and return stderr", async () => {
    const { answers } = await answersOf(
      bashScript("ls /nowhere", "false", "echo fine >&2", "(exit 3)", "no-such-program"),
      { worker },
    );
    expect(answers.map(([, isError]) => isError)).toEqual([true, true, false, true, true]);
    expect(answers[0]?.[0]).toContain("No such file or directory");
    expect(answers[2]?.[0]).toBe("fine");
    expect(answers[4]?.[0]).toContain("command not found");
  });

  test("truncate an output that is too long, and keep its end", async () => {
    const { answers } = await answersOf(bashScript(`seq 1 ${BIG_OUTPUT_LINES}`, "echo after"), { worker });
    const [big = "", after] = outputs(answers);
    expect(big).toMatch(/truncated/);
    expect(big.trimEnd().endsWith(`\n${BIG_OUTPUT_LINES}`)).toBe(true);
    expect(big.length).toBeLessThan(OUTPUT_LIMIT_BYTES + 1_000);
    expect(after).toBe("after");
  });

  test("may leave a program running that later calls find, and that ends with its Pod", async () => {
    const { answers, pod } = await answersOf(
      bashScript("sleep 1000 >/dev/null 2>&1 & echo $! >pid; echo started", "kill -0 $(cat pid) && echo runs"),
      { worker },
    );
    expect(outputs(answers)).toEqual([expect.stringContaining("started"), "runs"]);
    expect(pod?.status?.containerStatuses?.[0]?.state?.terminated).toMatchObject({ exitCode: 0 });
  });
});

/** Names of the variables of the container's process. */
const VARIABLES = "tr '\\0' '\\n' </proc/1/environ | cut -d= -f1 | sort | xargs";

describe.concurrent("the sandbox of a tool call, from a template that only names an image", () => {
  test("runs as the image's user, without capabilities, new privileges or a token of the Kubernetes API", async () => {
    const { answers } = await answersOf(
      bashScript(
        "id -u",
        "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '",
        "ls -A /var/run/secrets /run/secrets 2>/dev/null; echo done",
        "touch /probe /usr/bin/probe",
      ),
    );
    const [user, status, secrets] = outputs(answers);
    expect(user).toBe(String(WORKER_USER));
    expect(status?.split("\n")).toEqual([
      "CapEff: 0000000000000000",
      "CapBnd: 0000000000000000",
      "NoNewPrivs: 1",
      // gVisor has its own filter, of the sandbox's calls to the node's kernel.
      `Seccomp: ${IS_GVISOR ? 0 : 2}`,
    ]);
    expect(secrets).toBe("done");
    expect(answers[3]).toEqual([expect.stringContaining("Permission denied"), true]);
  });

  test("has the variables of the image, the session and the Kubernetes API, and none of other Services", async () => {
    await using world = await startE2eWorld();
    // With service links, the kubelet would add variables for this Service.
    const service = { metadata: { name: "neighbour" }, spec: { ports: [{ port: 80 }] } };
    await world.kube.raw("POST", `/api/v1/namespaces/${world.namespace}/services`, service);
    const served = await serveOne(world, { script: bashScript(VARIABLES, "env | cut -d= -f1 | sort | xargs") });
    await untilEnded(world, served, "Completed");
    const [ofWorker, ofTool] = outputs(await untilAnswered(world, served.item, 2)).map((text) => text?.split(" "));
    const ofKubernetes = ofWorker?.filter((name) => name.startsWith("KUBERNETES_"));
    expect(ofKubernetes).toContain("KUBERNETES_SERVICE_HOST");
    expect(ofWorker?.filter((name) => !ofKubernetes?.includes(name))).toEqual([
      "ANTHROPIC_BASE_URL",
      "ANTHROPIC_ENVIRONMENT_ID",
      "ANTHROPIC_SESSION_ID",
      "ANTHROPIC_WORK_ID",
      "ANTHROPIC_WORK_SECRET",
      "BERTH_WORKER_MAX_IDLE_MS",
      "HOME",
      "HOSTNAME",
      "NODE_ENV",
      "PATH",
    ]);
    // The worker does not pass its own variables to its tools.
    expect(ofTool?.filter((name) => name.startsWith("ANTHROPIC_"))).toEqual([]);
  });

  test("can write only to its volumes if its root file system is read-only", async () => {
    const { answers } = await answersOf(
      bashScript("touch /etc/probe", "touch /app/probe", "touch /tmp/probe", "echo x >/workspace/file; cat file"),
      {
        container: {
          securityContext: { readOnlyRootFilesystem: true },
          volumeMounts: [{ name: "workspace", mountPath: "/workspace" }],
        },
        podSpec: { volumes: [{ name: "workspace", emptyDir: {} }] },
      },
    );
    const refused = [expect.stringContaining(READ_ONLY), true];
    // gVisor mounts a file system in memory over an empty /tmp.
    const inTmp = IS_GVISOR ? ["(no output)", false] : refused;
    expect(answers).toEqual([refused, refused, inTmp, ["x", false]]);
  });
});
