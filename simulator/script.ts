import { z } from "zod";

const toolSchema = z.strictObject({
  /** A tool of the worker: bash, read, write, edit, glob, or grep. */
  name: z.string().min(1).default("bash"),
  input: z.record(z.string(), z.unknown()).default({}),
  /** The application answers this tool, not the worker. */
  custom: z.boolean().default(false),
  /** The worker holds the call until a person confirms it with `confirm`. */
  ask: z.boolean().default(false),
});

const turnSchema = z.strictObject({
  /** The message that the agent sends first. */
  say: z.string().optional(),
  /** How long the agent thinks, in milliseconds of the simulator's clock. */
  delayMs: z.number().min(0).default(0),
  /** The calls of this turn. The next turn starts when all of them are answered. */
  tools: z.array(toolSchema).default([]),
});

/**
 * What a session's agent does. After the last turn, the session goes idle (the default) or terminates, as `end` says.
 */
export const scriptSchema = z.strictObject({
  prompt: z.string().default("Say hello."),
  turns: z.array(turnSchema).default([]),
  end: z.enum(["idle", "terminated"]).default("idle"),
});

export type Script = z.output<typeof scriptSchema>;
export type ScriptInput = z.input<typeof scriptSchema>;
export type Turn = z.output<typeof turnSchema>;
export type ToolCallScript = z.output<typeof toolSchema>;

/** Returns a script that runs shell commands, one per turn. */
export function bashScript(...commands: string[]): ScriptInput {
  return { turns: commands.map((command) => ({ tools: [{ name: "bash", input: { command } }] })) };
}

/** The script of a session that is created without one. */
export const DEFAULT_SCRIPT: ScriptInput = bashScript("echo hello");
