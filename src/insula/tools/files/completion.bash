# Completion of Insula's commands for bash. Switch it on with: source <(insula completion bash)
declare -A _insula_commands=(
@COMMANDS@
)

_insula() {
    local found status=0
    found=$(@PYTHON@ -m insula.tools.complete "${_insula_commands[${1##*/}]}" \
        line "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null) || status=$?
    case $status in
        10) compopt -o filenames 2>/dev/null || :; mapfile -t COMPREPLY < <(compgen -f -- "$2") ;;
        11) compopt -o filenames 2>/dev/null || :; mapfile -t COMPREPLY < <(compgen -d -- "$2") ;;
        *)
            COMPREPLY=()
            [[ -n $found ]] && mapfile -t COMPREPLY <<<"$found"
            [[ ${#COMPREPLY[@]} == 1 && $found == *[:=] ]] && compopt -o nospace 2>/dev/null || :
            ;;
    esac
    return 0
}

complete -F _insula @NAMES@
