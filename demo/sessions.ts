import type { ScriptInput } from "../simulator/script.ts";

/** A request to an agent, and the tool calls that it makes. */
interface Task {
  readonly prompt: string;
  readonly tools: readonly { readonly name: string; readonly input: Readonly<Record<string, string>> }[];
}

const bash = (command: string) => ({ name: "bash", input: { command } });

/** Small tasks that work on any machine with a shell and stay in the session's folder. */
const TASKS: readonly Task[] = [
  {
    prompt: "Add up the numbers from 1 to 1000.",
    tools: [bash("s=0; for i in $(seq 1000); do s=$((s+i)); done; echo $s")],
  },
  {
    prompt: "Write a haiku into a file and count its words.",
    tools: [
      { name: "write", input: { file_path: "haiku.txt", content: "old pond\na frog leaps in\nwater's sound\n" } },
      bash("ls -l haiku.txt | cut -c 1-10"),
      bash("wc -w < haiku.txt"),
    ],
  },
  {
    prompt: "Which prime numbers are there below 50?",
    tools: [
      bash(
        "for n in $(seq 2 49); do p=1; for d in $(seq 2 7); do ((n>d && n%d==0)) && p=0; done; if ((p)); then printf '%s ' $n; fi; done",
      ),
    ],
  },
  {
    prompt: "Keep a shopping list: bread, milk, apples; then sort it.",
    tools: [bash("for thing in bread milk apples; do echo $thing >> list; done; ls"), bash("sort list | tr '\\n' ' '")],
  },
  {
    prompt: "Where are you, and is there anything in your folder?",
    tools: [bash('basename "$HOSTNAME"'), bash("ls -A | wc -l")],
  },
  {
    prompt: "Show me the first twelve Fibonacci numbers.",
    tools: [bash("a=0; b=1; for i in $(seq 12); do printf '%s ' $a; c=$((a+b)); a=$b; b=$c; done")],
  },
];

/** The average time that an agent thinks before a tool call; drawn between a third and twice this. */
const THINKING_MS = 400;

/** The script of a session for stock workers. `random` draws the task and each pause. */
export function sessionScript(random: () => number): ScriptInput {
  const task = TASKS[Math.floor(random() * TASKS.length)];
  const { prompt, tools } = task as Task;
  return {
    prompt,
    turns: tools.map((tool) => ({
      tools: [tool],
      delayMs: Math.round(THINKING_MS * (1 / 3 + random() * (2 - 1 / 3))),
    })),
  };
}

/** The script of a session for simulated workers: they hold the lease and execute nothing. */
export const SCRIPTED_SESSION: ScriptInput = { prompt: "(played by the node)", turns: [] };

/** How long simulated workers work, in milliseconds. */
export const SCRIPTED_WORK_MS = { min: 1_500, max: 5_000 };
