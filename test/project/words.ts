/**
 * Words that pages, messages, comments and names of tests don't use, and what to write instead: many of them are
 * correct, but read like a translation. The Kubernetes and Google style guides for documentation have the rest of the
 * style.
 */
export const WORDS: readonly { readonly avoid: RegExp; readonly write: string }[] = [
  { avoid: /\bmend(s|ed|ing)?\b/, write: "fix" },
  { avoid: /\b(anew|once more)\b/, write: "again" },
  { avoid: /\b(is|are|was|were|be|been|being) told of\b/, write: "is reported" },
  { avoid: /\b(tells?|(?<!\b(is|are|was|were|be|been|being) )told) of\b/, write: "reports" },
  { avoid: /\bnobody tells\b/, write: "nothing reports" },
  { avoid: /\bas ever\b/, write: "as usual" },
  { avoid: /(?<!\b(soon|long|well|far) )\bas it (is|was)(?=[.,;:)]|$)/, write: "as usual, or nothing" },
  { avoid: /\bfor good\b(?! reasons?\b)/, write: "permanently" },
  { avoid: /\bfor ever\b/, write: "forever" },
  { avoid: /\bin the place of\b/, write: "instead of" },
  { avoid: /\b(somebody|some one)\b/, write: "the name of the subject, such as another client" },
  { avoid: /\bnobody\b/, write: "no one, or the name of the subject" },
  { avoid: /\b(whoever|whomever|whosoever)\b/, write: "anyone who" },
  { avoid: /\b(he|him|his|she|her)\b/, write: "the name of the subject" },
  { avoid: /\bwhat comes\b/, write: "the name of the subject" },
  { avoid: /\bstands? for\b/, write: "means, represents" },
  { avoid: /\b(stands?|standing|stood) still\b/, write: "does not change" },
  { avoid: /\b(stands|stood)\b(?!-)/, write: "is" },
  { avoid: /\b(has|have|had|gets?|got|with|without|by|gives?|given|between) leave\b/, write: "permission" },
  { avoid: /\bbesides\b/, write: "also, except" },
  { avoid: /\bat that(?=[.,;:)]|$)/, write: "also" },
  { avoid: /\b(so many|how many there are)\b/, write: "the number of" },
  { avoid: /\b(is|are|was|were|be|been) over(?=[.,;:)]|$| and\b| when\b| before\b)/, write: "has ended" },
  { avoid: /\bcame? to nothing\b/, write: "failed" },
  { avoid: /\bhinder(s|ed|ing)?\b/, write: "block" },
  { avoid: /\bin the way(?=[.,;:)]|$)/, write: "blocked" },
  { avoid: /\bodd (items?|values?|answers?)\b/, write: "malformed item" },
  {
    avoid:
      /\bof (its|their|one's|your|our) own(?=[.,;:)]|$| (and|or|that|which|in|for|with|on|to|when|where|as|is|are|by|at|from|so|but|beside)\b)/,
    write: "its own Pod, not: a Pod of its own",
  },
  { avoid: /\bof (its|their) own accord\b/, write: "automatically" },
  { avoid: /\bof before\b/, write: "previous" },
  { avoid: /\bby (itself|themselves)\b/, write: "automatically, on its own" },
  { avoid: /\b(is|are|was|were|be|been) asked\b/, write: "request, or name who requests what" },
  { avoid: /\b(is|are|was|were|be|been) looked (at|for)\b/, write: "read, check, list" },
  { avoid: /\b(take|takes|taking|taken|took) (up\b(?! to\b)|over (the|a|an|its|their|\w+s)\b)/, write: "adopt" },
  { avoid: /\bbeat(s|en|ing)?\b/, write: "heartbeat, send a heartbeat" },
  { avoid: /\bthereby\b/, write: "nothing, or a new sentence" },
  { avoid: /\b(whereof|thereof|wherein|therein|hence|thus)\b/, write: "so, of it, in it" },
  { avoid: /\b(is|are|was|were) to be\b/, write: "must be, or the imperative" },
  { avoid: /\b(wants|want) to be\b/, write: "must be" },
  { avoid: /\b(has|have) to be let\b/, write: "must be allowed" },
];

/** Words that pages and comments can use, and messages don't. */
export const WORDS_OF_MESSAGES: typeof WORDS = [
  { avoid: /\b(looks(?! like)|looked|asks(?!:)|asked)\b/, write: "checks, reads, lists, requests" },
  { avoid: /\bleft (alone|out)\b|\bleave .* out\b/, write: "ignored, removed" },
  { avoid: /\bany more\b/, write: "no longer" },
  { avoid: /\btakes? (up|over|off)\b|\bgoes\b/, write: "adopts, is deleted" },
  { avoid: /n't\b(?! find key)/, write: "not (no contractions)" },
];

/** Words in one sentence. 25 is a good habit. */
export const MOST_WORDS = 30;
