{{/* The roles that have a user at the broker and a Secret in this namespace, as a list */}}
{{- define "wildrydes.roles" -}}
{{- $roles := keys .Values.workers | sortAlpha -}}
{{- $roles = concat $roles (list "gateway" "operator") -}}
{{- if .Values.keda.enabled }}{{ $roles = append $roles "scaler" }}{{ end -}}
{{- if or .Values.externalSecrets.enabled .Values.hooks.users.enabled }}{{ $roles = concat $roles (list "publisher" "client") }}{{ end -}}
{{- if .Values.hooks.users.enabled }}{{ $roles = append $roles "scaler" | uniq }}{{ end -}}
{{- toYaml $roles -}}
{{- end -}}
