/** A recorded text in a page: between a mark that names it and a mark that ends it. */
const BLOCK = /(<!-- recorded: ([a-z0-9-]+) -->\n)[\s\S]*?(<!-- end of the recorded text -->)/g;

/** The names of the recorded texts of a page, in its order, with the texts. */
export function recordedBlocks(page: string): Map<string, string> {
  return new Map([...page.matchAll(BLOCK)].map(([whole, , name = ""]) => [name, whole]));
}

/** The page with these texts in the place of what was recorded before; others stay as they are. */
export function replaceRecorded(page: string, texts: ReadonlyMap<string, string>): string {
  return page.replaceAll(BLOCK, (whole: string, begin: string, name: string, end: string) => {
    const text = texts.get(name);
    return text === undefined ? whole : `${begin}\`\`\`console\n${text}\n\`\`\`\n${end}`;
  });
}
