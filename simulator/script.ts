import { z } from "zod";

const toolSchema = z.strictObject({
  /** A tool of the worker: bash, read, write, edit, glob, grep. */
  name: z.string().min(1).default("bash"),
  input: z.record(z.string(), z.unknown()).default({}),
  /** A tool that the application answers, not the worker. */
  custom: z.boolean().default(false),
  /** Wait for a person: the worker holds the call until `confirm` is called. */
  ask: z.boolean().default(false),
});

const turnSchema = z.strictObject({
  /** What the agent says first. */
  say: z.string().optional(),
  /** How long the agent thinks, on the simulator's clock. */
  delayMs: z.number().min(0).default(0),
  /** Calls of this turn; the next turn starts when all are answered. */
  tools: z.array(toolSchema).default([]),
});

/** What a session's agent does. `end`: what follows the last turn: idle (the default), or the end of the session. */
export const scriptSchema = z.strictObject({
  prompt: z.string().default("Say hello."),
  turns: z.array(turnSchema).default([]),
  end: z.enum(["idle", "terminated"]).default("idle"),
});

export type Script = z.output<typeof scriptSchema>;
export type ScriptInput = z.input<typeof scriptSchema>;
export type Turn = z.output<typeof turnSchema>;
export type ToolCallScript = z.output<typeof toolSchema>;

/** A script of shell commands, one turn each. */
export function bashScript(...commands: string[]): ScriptInput {
  return { turns: commands.map((command) => ({ tools: [{ name: "bash", input: { command } }] })) };
}

/** The script of a session for which none is given. */
export const DEFAULT_SCRIPT: ScriptInput = bashScript("echo hello");
