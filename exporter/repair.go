package exporter

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// repair makes every string under m valid UTF-8: one U+FFFD for each run of
// invalid bytes, as Tetragon does it for arguments and paths.
func repair(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			repairMap(field, value.Map())
		case field.IsList():
			list := value.List()
			for i := range list.Len() {
				if fixed, ok := repairValue(field, list.Get(i)); ok {
					list.Set(i, fixed)
				}
			}
		default:
			if fixed, ok := repairValue(field, value); ok {
				m.Set(field, fixed)
			}
		}
		return true
	})
}

// repairMap also repairs keys; keys that become equal keep one value.
func repairMap(field protoreflect.FieldDescriptor, entries protoreflect.Map) {
	entries.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		if fixed, ok := repairValue(field.MapValue(), value); ok {
			entries.Set(key, fixed)
		}
		return true
	})
	if field.MapKey().Kind() != protoreflect.StringKind {
		return
	}
	fixed := map[string]protoreflect.Value{}
	entries.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		if valid := toValid(key.String()); valid != key.String() {
			fixed[valid] = value
			entries.Clear(key)
		}
		return true
	})
	for key, value := range fixed {
		entries.Set(protoreflect.ValueOfString(key).MapKey(), value)
	}
}

// repairValue returns the repaired value of a string, or repairs a message in
// place; ok says that the value has to be set.
func repairValue(field protoreflect.FieldDescriptor, value protoreflect.Value) (fixed protoreflect.Value, ok bool) {
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		repair(value.Message())
	case protoreflect.StringKind:
		if valid := toValid(value.String()); valid != value.String() {
			return protoreflect.ValueOfString(valid), true
		}
	}
	return value, false
}

func toValid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
