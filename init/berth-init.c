// berth-init: the first process of a session's container, for the life of the container. It reads lines from standard
// input, runs the container's program as its child, once for each item of the session, and reports on standard error.
// Everything that the program prints goes to standard output. README.md is the protocol.
//
//   berth-init [--once] [--preload] [--message FILE] -- COMMAND [ARGUMENT...]

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
  LINE_MAX_BYTES = 4096, // of a line, a report or an item, with its line breaks: what an empty pipe takes as a whole
  NAME_MAX_BYTES = 64,   // of a nonce, boot or claim, with its end
  WORDS_MAX_BYTES = 1024, // of a program's last words, before they are encoded
  CLEANUP_MS = 5000,     // for the processes of a program to be gone after SIGKILL
  DRAIN_MS = 1000,       // for the last output of a program to be taken
};

// What berth-init exits with when no program decides it.
enum { EXIT_UNREADY = 1, EXIT_STDIN_CLOSED = 75, EXIT_MISUSE = 125, EXIT_NOT_FIRST = 126, EXIT_TERMINATED = 128 + SIGTERM };

static enum { WAITING, RUNNING, ENDED } phase = WAITING;
static char boot[2 * 16 + 1];
static char claim[NAME_MAX_BYTES] = "-";
static int64_t last_number = 0;
static char how_ended[3 * WORDS_MAX_BYTES + 128];

static pid_t program = 0; // with --preload, also the one that waits for its item
static const char *asked; // which request made the program end, or "-"
static int64_t ooms_before;
static int64_t deadline_ms = 0; // of the program or, without one, of the container; 0: none
static int64_t grace_ms;
static int exit_code = -1; // what to exit with once no program runs; -1: stay

static bool once = false;
static bool preload = false;
static const char *message_path = NULL;
static char **command;

static char item[6 * LINE_MAX_BYTES]; // as JSON, in which a byte takes at most six
static int item_fd = -1; // the standard input of the program that waits for its item; -1: none does

static int report_fd = STDERR_FILENO;
static int output_fd = -1; // standard output, opened again so that a write never waits; -1: that isn't possible
static int errors_fd = -1; // what the program writes to its standard error
static char unwritten[LINE_MAX_BYTES];
static size_t unwritten_from = 0, unwritten_to = 0;
static char words[WORDS_MAX_BYTES]; // the last of what the program wrote there
static size_t words_length = 0;

// What each program starts with, as the container's runtime set it.
static sigset_t first_mask;
static char first_folder[LINE_MAX_BYTES];
static int first_priority;
static struct rlimit first_limits[RLIM_NLIMITS];

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// --- reports ---------------------------------------------------------------------------------------------------------

// Reports the state; `nonce` is that of the line that it answers, or "-". It never waits: a report is lost if the pipe is
// full, and the next answer says the same.
static void report(const char *nonce) {
  static const char *const names[] = {"waiting", "running", "ended"};
  char text[LINE_MAX_BYTES], framed[LINE_MAX_BYTES];
  const char *space = phase == ENDED ? " " : "", *how = phase == ENDED ? how_ended : "";
  int length = snprintf(text, sizeof text, "state %s %s %s %s%s%s", boot, nonce, claim, names[phase], space, how);
  int bytes = snprintf(framed, sizeof framed, "\nberth2 %d %s #end\n", length, text);
  ssize_t written = write(report_fd, framed, (size_t)bytes);
  (void)written;
}

// Writes bytes as one word: those that aren't printable ASCII, `%` and spaces as %XX. Nothing is "-".
static void encode(char *to, const char *from, size_t length) {
  if (length == 0) *to++ = '-';
  for (size_t i = 0; i < length; i++) {
    unsigned char byte = (unsigned char)from[i];
    // A lone "-" would be read as nothing.
    if (byte > ' ' && byte < 127 && byte != '%' && byte != '-') *to++ = (char)byte;
    else to += sprintf(to, "%%%02X", byte);
  }
  *to = '\0';
}

// --- the program's standard error, which is copied to standard output ------------------------------------------------

static void keep_words(const char *bytes, size_t count) {
  if (count > sizeof words) bytes += count - sizeof words, count = sizeof words;
  size_t kept = words_length + count > sizeof words ? sizeof words - count : words_length;
  memmove(words, words + words_length - kept, kept);
  memcpy(words + kept, bytes, count);
  words_length = kept + count;
}

static void write_copy(void) {
  ssize_t count = write(output_fd, unwritten + unwritten_from, unwritten_to - unwritten_from);
  if (count > 0) unwritten_from += (size_t)count;
  // The reader of the container's output is gone: what it would have read is lost, as for any program.
  else if (errno != EAGAIN && errno != EINTR) unwritten_from = unwritten_to;
}

// Copies what is there. Returns false if nothing more can come.
static bool copy_errors(void) {
  ssize_t count = read(errors_fd, unwritten, sizeof unwritten);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  if (count == 0) return false;
  keep_words(unwritten, (size_t)count);
  unwritten_from = 0;
  unwritten_to = (size_t)count;
  write_copy();
  return true;
}

// Copies the rest of what an ended program wrote. All writers are gone, so the pipe has an end.
static void drain_errors(void) {
  int64_t until = now_ms() + DRAIN_MS;
  for (bool more = errors_fd >= 0; more && now_ms() < until;) {
    if (unwritten_from == unwritten_to) {
      more = copy_errors();
      continue;
    }
    struct pollfd out = {.fd = output_fd, .events = POLLOUT};
    if (poll(&out, 1, (int)(until - now_ms())) > 0) write_copy();
  }
  if (errors_fd >= 0) close(errors_fd);
  errors_fd = -1;
  unwritten_from = unwritten_to = 0;
}

// --- a program -------------------------------------------------------------------------------------------------------

// Returns how many processes of the container were killed since it has too little memory, by the control group.
static int64_t count_ooms(void) {
  static const char *const paths[] = {"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"};
  char text[1024];
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    int fd = open(paths[i], O_RDONLY | O_CLOEXEC);
    ssize_t count = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (count <= 0) continue;
    text[count] = '\0';
    const char *found = strstr(text, "oom_kill ");
    if (found) return strtoll(found + strlen("oom_kill "), NULL, 10);
  }
  return 0;
}

// Decodes %XX in place. Returns false for a wrong code, and for one of a byte that no variable can have.
static bool decode(char *text) {
  char *to = text;
  for (const char *from = text; *from; from++, to++) {
    *to = *from;
    if (*from != '%') continue;
    char code[3] = {from[1], from[1] ? from[2] : '\0', '\0'}, *end;
    bool is_code = strspn(code, "0123456789ABCDEF") == 2;
    *to = (char)strtoul(code, &end, 16);
    if (!is_code || *to == '\0') return false;
    from += 2;
  }
  *to = '\0';
  return true;
}

// Writes variables as one line of JSON. Returns false if it may be too long for a pipe. Bytes above 127 stay as they are.
static bool write_item(char *variables[]) {
  char *to = stpcpy(item, "{");
  for (size_t i = 0; variables[i]; i++) {
    const char *equals = strchr(variables[i], '=');
    to = stpcpy(to, i == 0 ? "\"" : ",\"");
    for (const char *from = variables[i]; *from; from++) {
      unsigned char byte = (unsigned char)*from;
      if (from == equals) to = stpcpy(to, "\":\"");
      else if (byte < ' ') to += sprintf(to, "\\u%04x", byte);
      else {
        if (byte == '"' || byte == '\\') *to++ = '\\';
        *to++ = *from;
      }
    }
    to = stpcpy(to, "\"");
  }
  to = stpcpy(to, "}\n");
  return to - item <= LINE_MAX_BYTES;
}

// Gives the item to the program that waits for it. Never waits. Returns false if the program can't read it.
static bool give_item(void) {
  size_t length = strlen(item);
  bool is_given = write(item_fd, item, length) == (ssize_t)length;
  close(item_fd);
  item_fd = -1;
  return is_given;
}

// Becomes the program. Never returns.
static void become_program(char *variables[], int input, const int errors[2]) {
  if (chdir(first_folder) != 0) dprintf(errors[1], "berth-init: folder %s: %s\n", first_folder, strerror(errno));
  // The program may have changed those of the first process. A hard limit that it lowered stays lowered.
  for (int i = 0; i < RLIM_NLIMITS; i++) setrlimit(i, &first_limits[i]);
  setpriority(PRIO_PROCESS, 0, first_priority);
  setsid();
  for (size_t i = 0; !preload && variables[i]; i++) putenv(variables[i]);
  if (!preload) input = open("/dev/null", O_RDONLY | O_CLOEXEC);
  dup2(input, STDIN_FILENO);
  dup2(errors[1] < 0 ? STDOUT_FILENO : errors[1], STDERR_FILENO);
  sigprocmask(SIG_SETMASK, &first_mask, NULL);
  execvp(command[0], command);
  int error = errno;
  dprintf(STDERR_FILENO, "berth-init: command %s: %s\n", command[0], strerror(error));
  _exit(error == ENOENT ? 127 : 126);
}

// Starts the program with these variables, or one that waits for its item. If it can't be started, that is how it ended.
static void start_program(char *variables[]) {
  int input[2] = {-1, -1}, errors[2] = {-1, -1};
  words_length = 0;
  asked = "-";
  ooms_before = count_ooms();
  int message = message_path ? open(message_path, O_WRONLY | O_TRUNC | O_CLOEXEC) : -1;
  if (message >= 0) close(message);
  if (output_fd >= 0 && pipe2(errors, O_CLOEXEC) == 0) fcntl(errors[0], F_SETFL, O_NONBLOCK);
  pid_t child = preload && pipe2(input, O_CLOEXEC) != 0 ? -1 : fork();
  if (child == 0) become_program(variables, input[0], errors);
  const char *why = strerror(errno);
  if (input[0] >= 0) close(input[0]);
  if (errors[1] >= 0) close(errors[1]);
  errors_fd = errors[0];
  item_fd = input[1];
  if (item_fd >= 0) fcntl(item_fd, F_SETFL, O_NONBLOCK);
  if (child > 0) {
    program = child;
    return;
  }
  if (item_fd >= 0) close(item_fd);
  item_fd = -1;
  drain_errors();
  char text[3 * WORDS_MAX_BYTES + 1];
  encode(text, why, strlen(why));
  snprintf(how_ended, sizeof how_ended, "unstarted 0 - clean %s", text);
  phase = ENDED;
  deadline_ms = 0;
  if (once) exit_code = EXIT_MISUSE;
}

// Ends every other process of the container. Returns false if one can't be ended.
static bool end_all_others(void) {
  for (int64_t until = now_ms() + CLEANUP_MS; now_ms() < until;) {
    // Only an error says that no process is left: those that can't be signalled count as signalled.
    if (kill(-1, SIGKILL) != 0 && errno == ESRCH) return true;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    poll(NULL, 0, 1);
  }
  return false;
}

// Reads the message that the program left at the path for it. Returns its length.
static size_t read_message(char to[WORDS_MAX_BYTES]) {
  // It may be a FIFO by now, whose opening would wait.
  int fd = message_path ? open(message_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
  if (fd < 0) return 0;
  off_t size = lseek(fd, 0, SEEK_END);
  if (size > WORDS_MAX_BYTES) lseek(fd, -WORDS_MAX_BYTES, SEEK_END);
  else lseek(fd, 0, SEEK_SET);
  ssize_t count = read(fd, to, WORDS_MAX_BYTES);
  close(fd);
  return count > 0 ? (size_t)count : 0;
}

// The program ended with this status: cleans up, and reports.
static void note_end(int status) {
  bool is_signal = WIFSIGNALED(status);
  int number = is_signal ? WTERMSIG(status) : WEXITSTATUS(status);
  program = 0;
  bool is_clean = end_all_others();
  drain_errors();
  char message[WORDS_MAX_BYTES], text[3 * WORDS_MAX_BYTES + 1];
  size_t length = read_message(message);
  if (length > 0) encode(text, message, length);
  else encode(text, words, words_length);
  const char *how = is_signal ? "signal" : "exit";
  // A program that ends well has coped with the process that it lost.
  if ((is_signal || number != 0) && count_ooms() > ooms_before) how = "oom";
  const char *left = is_clean ? "clean" : "left";
  snprintf(how_ended, sizeof how_ended, "%s %d %s %s %s", how, number, asked, left, text);
  bool has_run = phase == RUNNING;
  phase = ENDED;
  deadline_ms = 0;
  int code = is_signal ? 128 + number : number;
  // A waiting program that ends has failed, whatever its code: with 0, its Pod would have succeeded.
  if (!has_run && code == 0) code = EXIT_UNREADY;
  if ((once || !has_run) && exit_code < 0) exit_code = code;
  report("-");
}

static void reap(void) {
  int status;
  for (pid_t ended; (ended = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (ended == program) note_end(status);
  }
}

// Asks the program to end, and ends it if it hasn't after its grace.
static void stop_program(const char *request) {
  // A second request gives no more time.
  if (strcmp(asked, "-") == 0) {
    asked = request;
    deadline_ms = now_ms() + grace_ms;
  }
  kill(program, SIGTERM);
}

static void kill_program(const char *request) {
  if (strcmp(asked, "-") == 0) asked = request;
  kill(-1, SIGKILL);
  deadline_ms = 0;
}

// Ends the container, once no program runs. One that waits for its item has nothing to save.
static void leave(int code) {
  exit_code = code;
  if (phase != RUNNING) kill(-1, SIGKILL);
}

static void note_deadline(void) {
  deadline_ms = 0;
  if (phase != RUNNING) leave(0);
  else if (strcmp(asked, "-") == 0) stop_program("time");
  else kill_program(asked);
}

// --- lines -----------------------------------------------------------------------------------------------------------

// Takes the next word off a text whose words are divided by single spaces; NULL: there is none.
static char *take_word(char **rest) {
  char *word = *rest && **rest ? strsep(rest, " ") : NULL;
  return word && *word ? word : NULL;
}

static bool is_name(const char *word) {
  static const char letters[] = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  return word && strlen(word) < NAME_MAX_BYTES && word[strspn(word, letters)] == '\0';
}

// Reads a number of at most 15 digits, which no later sum or product overflows; -1: it is none.
static int64_t number_of(const char *word) {
  if (!word || strlen(word) > 15 || word[strspn(word, "0123456789")] != '\0') return -1;
  return strtoll(word, NULL, 10);
}

static void take_run(const char *of_claim, char *rest) {
  static char *variables[LINE_MAX_BYTES / 3];
  int64_t number = number_of(take_word(&rest)), seconds = number_of(take_word(&rest));
  int64_t grace = number_of(take_word(&rest));
  if (phase == RUNNING || exit_code >= 0 || seconds < 0 || grace < 0 || number <= last_number) return;
  size_t count = 0;
  for (char *word; (word = take_word(&rest)); variables[count++] = word) {
    const char *equals = strchr(word, '=');
    if (!equals || equals == word || !decode(word)) return;
  }
  if (rest && *rest) return;
  variables[count] = NULL;
  if (preload && !write_item(variables)) return;
  // A waiting program that can't read its item has failed before the item, which nothing was given to.
  if (item_fd >= 0 && !give_item()) {
    leave(EXIT_UNREADY);
    return;
  }
  last_number = number;
  strcpy(claim, of_claim);
  grace_ms = grace * 1000;
  deadline_ms = seconds > 0 ? now_ms() + seconds * 1000 : 0;
  if (!program) start_program(variables);
  if (!program) return;
  phase = RUNNING;
  // One that has ended already can't take its item, and its end is reported.
  if (item_fd >= 0) give_item();
}

// Carries out a line without its break. What isn't a whole line is skipped: two writers may have mixed theirs.
static void take_line(char *line) {
  static const char mark[] = "berth2 ", end[] = " #end";
  if (strncmp(line, mark, strlen(mark)) != 0) return;
  char *rest = line + strlen(mark), *length = take_word(&rest);
  if (!rest || strlen(rest) < strlen(end)) return;
  char *last = rest + strlen(rest) - strlen(end);
  if (strcmp(last, end) != 0 || number_of(length) != last - rest) return;
  *last = '\0';
  const char *verb = take_word(&rest), *nonce = take_word(&rest);
  if (!verb || !is_name(nonce)) return;
  if (strcmp(verb, "hello") != 0) {
    const char *of_boot = take_word(&rest), *of_claim = take_word(&rest);
    if (!is_name(of_boot) || !is_name(of_claim)) return;
    bool is_boot = strcmp(of_boot, boot) == 0, is_running = is_boot && phase == RUNNING && strcmp(of_claim, claim) == 0;
    if (strcmp(verb, "run") == 0 && is_boot) take_run(of_claim, rest);
    else if (strcmp(verb, "stop") == 0 && is_running) stop_program("stop");
    else if (strcmp(verb, "kill") == 0 && is_running) kill_program("kill");
    else if (strcmp(verb, "sleep") == 0 && is_boot && phase != RUNNING && strcmp(of_claim, claim) == 0) {
      int64_t seconds = number_of(take_word(&rest));
      if (seconds >= 0) deadline_ms = now_ms() + seconds * 1000;
    }
  }
  report(nonce);
}

// Reads what is on standard input. Returns false at its end.
static bool take_input(void) {
  static char buffer[LINE_MAX_BYTES];
  static size_t length = 0;
  static bool is_too_long = false;
  ssize_t count = read(STDIN_FILENO, buffer + length, sizeof buffer - length);
  if (count < 0) return errno == EINTR || errno == EAGAIN;
  if (count == 0) return false;
  length += (size_t)count;
  size_t from = 0;
  for (char *end; (end = memchr(buffer + from, '\n', length - from)); from = (size_t)(end - buffer) + 1) {
    *end = '\0';
    // A byte 0 would hide the rest of the line.
    if (!is_too_long && strlen(buffer + from) == (size_t)(end - buffer) - from) take_line(buffer + from);
    is_too_long = false;
  }
  memmove(buffer, buffer + from, length - from);
  length -= from;
  if (length == sizeof buffer) is_too_long = true, length = 0;
  // Lines have secrets.
  explicit_bzero(buffer + length, sizeof buffer - length);
  explicit_bzero(item, strlen(item));
  return true;
}

// --- the container ---------------------------------------------------------------------------------------------------

static void take_signals(int signals_fd) {
  struct signalfd_siginfo info;
  while (read(signals_fd, &info, sizeof info) == (ssize_t)sizeof info) {
    // A signal from another namespace has no sender here. One from inside was sent by the program, and does nothing.
    if (info.ssi_signo == SIGCHLD || info.ssi_pid != 0) continue;
    leave(EXIT_TERMINATED);
    if (!program) continue;
    if (strcmp(asked, "-") == 0) asked = "terminate";
    kill(program, (int)info.ssi_signo);
  }
  reap();
}

static int reopen(int fd) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
}

static void remember_start(void) {
  if (!getcwd(first_folder, sizeof first_folder)) strcpy(first_folder, "/");
  first_priority = getpriority(PRIO_PROCESS, 0);
  for (int i = 0; i < RLIM_NLIMITS; i++) getrlimit(i, &first_limits[i]);
}

// Makes the id of this start of the container. Returns false without random bytes.
static bool make_boot(void) {
  unsigned char bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) return false;
  for (size_t i = 0; i < sizeof bytes; i++) sprintf(boot + 2 * i, "%02x", bytes[i]);
  return true;
}

static bool read_arguments(int count, char *arguments[]) {
  int i = 1;
  for (; i < count && strcmp(arguments[i], "--") != 0; i++) {
    if (strcmp(arguments[i], "--once") == 0) once = true;
    else if (strcmp(arguments[i], "--preload") == 0) preload = true;
    else if (strcmp(arguments[i], "--message") == 0 && i + 1 < count) message_path = arguments[++i];
    else return false;
  }
  command = arguments + i + 1;
  return i + 1 < count;
}

int main(int count, char *arguments[]) {
  if (!read_arguments(count, arguments)) {
    dprintf(STDERR_FILENO, "usage: berth-init [--once] [--preload] [--message FILE] -- COMMAND [ARGUMENT...]\n");
    return EXIT_MISUSE;
  }
  // Its clean-up ends all other processes that it sees: with a shared namespace, those of neighbors or of the node.
  if (getpid() != 1) {
    dprintf(STDERR_FILENO, "berth-init: not process 1: the Pod has shareProcessNamespace or hostPID\n");
    return EXIT_NOT_FIRST;
  }
  if (!make_boot()) return EXIT_MISUSE;
  remember_start();
  output_fd = reopen(STDOUT_FILENO);
  int reopened = reopen(STDERR_FILENO);
  if (reopened >= 0) report_fd = reopened;
  // After this, programs of the same user can't open what /proc shows of this process, nor trace it.
  prctl(PR_SET_DUMPABLE, 0);
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &first_mask);
  int signals_fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
  if (preload) {
    start_program(NULL);
    if (!program) exit_code = EXIT_MISUSE;
  }
  report("-");
  bool is_open = true;
  while (exit_code < 0 || program) {
    bool has_unwritten = unwritten_from < unwritten_to;
    struct pollfd fds[] = {
        {.fd = is_open ? STDIN_FILENO : -1, .events = POLLIN},
        {.fd = signals_fd, .events = POLLIN},
        {.fd = has_unwritten ? -1 : errors_fd, .events = POLLIN},
        {.fd = has_unwritten ? output_fd : -1, .events = POLLOUT},
    };
    int64_t left_ms = deadline_ms - now_ms();
    int wait_ms = deadline_ms == 0 ? -1 : left_ms <= 0 ? 0 : left_ms > 60000 ? 60000 : (int)left_ms;
    if (poll(fds, sizeof fds / sizeof *fds, wait_ms) < 0) continue;
    if (fds[0].revents && !(is_open = take_input())) {
      // No line can come any more: the program that runs is the last.
      if (exit_code < 0) leave(EXIT_STDIN_CLOSED);
    }
    if (fds[2].revents && errors_fd >= 0 && !copy_errors()) close(errors_fd), errors_fd = -1;
    if (fds[3].revents && unwritten_from < unwritten_to) write_copy();
    if (fds[1].revents) take_signals(signals_fd);
    if (deadline_ms != 0 && now_ms() >= deadline_ms) note_deadline();
  }
  return exit_code;
}
