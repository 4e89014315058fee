/** A recorded text in a page, between a mark with its name and an end mark. */
const BLOCK = /(<!-- recorded: ([a-z0-9-]+) -->\n)[\s\S]*?(<!-- end of the recorded text -->)/g;

/** The recorded texts of a page by name, in order. */
export function recordedBlocks(page: string): Map<string, string> {
  return new Map([...page.matchAll(BLOCK)].map(([whole, , name = ""]) => [name, whole]));
}

/** The page with these recorded texts replaced; others stay. */
export function replaceRecorded(page: string, texts: ReadonlyMap<string, string>): string {
  return page.replaceAll(BLOCK, (whole: string, begin: string, name: string, end: string) => {
    const text = texts.get(name);
    return text === undefined ? whole : `${begin}\`\`\`console\n${text}\n\`\`\`\n${end}`;
  });
}
