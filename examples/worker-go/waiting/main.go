// The stock Go worker for one session, started before there is a session (`parking: Program`, docs/program-parking.md).
// It waits for its work item on standard input, serves it, then exits. ANTHROPIC_WORK_ID, ANTHROPIC_SESSION_ID and
// ANTHROPIC_WORK_SECRET (or ANTHROPIC_ENVIRONMENT_KEY) come with the item. ANTHROPIC_ENVIRONMENT_ID, ANTHROPIC_BASE_URL,
// WORKSPACE and BERTH_WORKER_MAX_IDLE_MS are environment variables, as in the other worker.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/lib/environments"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
)

const (
	exitNoItem  = 75
	exitSigterm = 143
)

type item struct {
	WorkID         string `json:"ANTHROPIC_WORK_ID"`
	SessionID      string `json:"ANTHROPIC_SESSION_ID"`
	WorkSecret     string `json:"ANTHROPIC_WORK_SECRET"`
	EnvironmentKey string `json:"ANTHROPIC_ENVIRONMENT_KEY"`
}

func main() {
	log.SetFlags(0)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)

	options := environments.EnvironmentWorkerOptions{Workdir: os.Getenv("WORKSPACE")}
	if text := os.Getenv("BERTH_WORKER_MAX_IDLE_MS"); text != "" {
		ms, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			log.Fatalf("BERTH_WORKER_MAX_IDLE_MS must be a whole number, 0 or more: %v", err)
		}
		maxIdle := time.Duration(ms) * time.Millisecond
		options.MaxIdle = &maxIdle
	}
	// The client requires a credential; the worker replaces it with the item's in every call.
	worker := environments.NewEnvironmentWorker(anthropic.NewClient(option.WithAuthToken("unused")), options)

	items := make(chan item)
	go readItem(items)
	select {
	case <-signals:
		// While it waits, there is nothing to finish.
		os.Exit(exitSigterm)
	case found, ok := <-items:
		if !ok {
			os.Exit(exitNoItem)
		}
		serve(worker, found, signals)
	}
}

func serve(worker *environments.EnvironmentWorker, found item, signals <-chan os.Signal) {
	// Tells Berth that the item has arrived.
	os.Stdout.WriteString("berth1 started\n")
	// A repeated line must not reach this program's tools, which may inherit its standard input.
	devNull, err := os.Open(os.DevNull)
	if err == nil {
		err = syscall.Dup3(int(devNull.Fd()), 0, 0)
	}
	if err != nil {
		log.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-signals
		// The worker drains, sends its stop and returns.
		cancel()
	}()
	err = worker.HandleItem(ctx, environments.HandleItemOptions{
		WorkID:         found.WorkID,
		SessionID:      found.SessionID,
		WorkSecret:     found.WorkSecret,
		EnvironmentKey: found.EnvironmentKey,
	})
	if err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

// readItem reads standard input up to the first line that is an item.
func readItem(items chan<- item) {
	defer close(items)
	input := bufio.NewReader(os.Stdin)
	for {
		line, err := input.ReadString('\n')
		if err != nil {
			return
		}
		if found, ok := itemIn(line); ok {
			items <- found
			return
		}
	}
}

var frame = regexp.MustCompile(`^berth1 (\d{1,4}) (\{.*\}) #end\n$`)

// itemIn returns the item in a line `berth1 <length> <JSON> #end`, or false for any other or incomplete line.
func itemIn(line string) (found item, ok bool) {
	match := frame.FindStringSubmatch(line)
	if match == nil || match[1] != strconv.Itoa(len(match[2])) {
		return found, false
	}
	err := json.Unmarshal([]byte(match[2]), &found)
	return found, err == nil && found.WorkID != ""
}
