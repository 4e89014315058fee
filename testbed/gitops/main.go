// Command gitops prints how GitOps tools judge an object: Flux by kstatus, Argo CD by a health check in Lua. It reads
// objects as JSON from standard input, and writes one line for each. Its argument is the file of the health check.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// verdict is what one tool says.
type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type verdicts struct {
	Flux   verdict `json:"flux"`
	ArgoCD verdict `json:"argocd"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	check, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	decoder, encoder := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var raw json.RawMessage
		if err := decoder.Decode(&raw); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		// Its decoder keeps integers as integers, which kstatus requires.
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(raw); err != nil {
			return err
		}
		result, err := status.Compute(object)
		if err != nil {
			return err
		}
		health, err := evaluate(string(check), object)
		if err != nil {
			return err
		}
		if err := encoder.Encode(verdicts{verdict{result.Status.String(), result.Message}, health}); err != nil {
			return err
		}
	}
}

// evaluate runs the health check with the libraries that Argo CD opens for it.
func evaluate(check string, object *unstructured.Unstructured) (verdict, error) {
	vm := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer vm.Close()
	libraries := []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}}
	for _, library := range libraries {
		err := vm.CallByParam(lua.P{Fn: vm.NewFunction(library.open), Protect: true}, lua.LString(library.name))
		if err != nil {
			return verdict{}, err
		}
	}
	vm.SetGlobal("obj", valueOf(vm, object.Object))
	if err := vm.DoString(check); err != nil {
		return verdict{}, err
	}
	table, isTable := vm.Get(-1).(*lua.LTable)
	if !isTable {
		return verdict{}, fmt.Errorf("the health check returned %s instead of a table", vm.Get(-1).Type())
	}
	return verdict{textOf(table, "status"), textOf(table, "message")}, nil
}

func textOf(table *lua.LTable, key string) string {
	if text, isText := table.RawGetString(key).(lua.LString); isText {
		return string(text)
	}
	return ""
}

func valueOf(vm *lua.LState, value any) lua.LValue {
	switch typed := value.(type) {
	case bool:
		return lua.LBool(typed)
	case int64:
		return lua.LNumber(typed)
	case float64:
		return lua.LNumber(typed)
	case string:
		return lua.LString(typed)
	case []any:
		table := vm.NewTable()
		for _, each := range typed {
			table.Append(valueOf(vm, each))
		}
		return table
	case map[string]any:
		table := vm.NewTable()
		for key, each := range typed {
			table.RawSetString(key, valueOf(vm, each))
		}
		return table
	default:
		return lua.LNil
	}
}
