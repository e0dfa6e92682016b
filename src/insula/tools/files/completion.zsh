# Completion of Insula's commands for zsh. Switch it on, after compinit, with:
#     source <(insula completion zsh)
typeset -gA _insula_commands=(
@COMMANDS@
)

_insula() {
    local text
    local -a found
    text=$(@PYTHON@ -m insula.tools.complete "${_insula_commands[${words[1]:t}]}" \
        words "${(@)words[1,CURRENT]}" 2>/dev/null)
    case $? in
        10) _files ;;
        11) _files -/ ;;
        *) found=("${(@f)text}"); [[ -n $text ]] && _describe -o 'insula' found ;;
    esac
}

compdef _insula @NAMES@
