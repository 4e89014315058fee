import { Argument, type Command } from "commander";
import { SCRIPTS, SHELLS, type Shell, shapeOf } from "./completion-scripts.ts";
import type { Invocation } from "./invocation.ts";

/** `berth completion`: a script that completes commands, flags and their choices, made from those of the program itself. */
export function addCompletion(program: Command, { streams }: Invocation): void {
  program
    .command("completion")
    .usage("<bash|zsh|fish>")
    .description("Print the completion script of a shell.")
    .addArgument(new Argument("<shell>", "The shell that is to complete.").choices([...SHELLS]))
    .action((shell: Shell) => streams.out(SCRIPTS[shell](shapeOf(program))));
}
