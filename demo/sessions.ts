import type { ScriptInput } from "../simulator/script.ts";

/** A message to a session. */
export interface Message {
  readonly script: ScriptInput;
  /** What the last tool call returns if the session finds the file that it wrote before. */
  readonly finds?: string;
  /** The message with which the session comes back. */
  readonly next?: Message;
}

/** A request to an agent, and the tool calls that it makes. */
interface Task {
  readonly prompt: string;
  readonly tools: readonly { readonly name: string; readonly input: Readonly<Record<string, string>> }[];
  readonly finds?: string;
  readonly next?: Task;
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
    next: { prompt: "How does your haiku end?", tools: [bash("tail -n 1 haiku.txt")], finds: "water's sound" },
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
    next: { prompt: "What is on my list?", tools: [bash("cat list")], finds: "bread milk apples" },
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

/** A message for simulated workers: they hold the lease and execute nothing. */
const PLAYED: Task = { prompt: "(played by the node)", tools: [] };
/** A third of the sessions come back, as with the other tasks. */
const PLAYED_TASKS: readonly Task[] = [PLAYED, PLAYED, { ...PLAYED, next: PLAYED }];

/**
 * The first message of a session. `random` draws the task and each pause.
 * @param workers stock workers, or those that the simulated node plays
 * @param comesBack the session comes back, whatever is drawn
 */
export function firstMessage(random: () => number, workers: "stock" | "played", comesBack: boolean): Message {
  const tasks = workers === "stock" ? TASKS : PLAYED_TASKS;
  const drawn = tasks[Math.floor(random() * tasks.length)];
  return messageOf((comesBack ? tasks.findLast(({ next }) => next) : drawn) as Task, random);
}

function messageOf({ prompt, tools, finds, next }: Task, random: () => number): Message {
  const turns = tools.map((tool) => ({
    tools: [tool],
    delayMs: Math.round(THINKING_MS * (1 / 3 + random() * (2 - 1 / 3))),
  }));
  return {
    script: { prompt, turns },
    ...(finds !== undefined && { finds }),
    ...(next && { next: messageOf(next, random) }),
  };
}

/** How long simulated workers work, in milliseconds. */
export const SCRIPTED_WORK_MS = { min: 1_500, max: 5_000 };
